"""The process that answers the Open Inference Protocol: the models of the lifecycle, over REST and gRPC."""
