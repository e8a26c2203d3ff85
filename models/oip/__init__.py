"""The Open Inference Protocol, version 2: tensors, REST bodies and gRPC messages, for who serves and who asks.

Written after the public specification (github.com/kserve/open-inference-protocol) and the extension for binary
tensors of Triton Inference Server.
"""
