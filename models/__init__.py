"""Models that the stream calls: specs, runtime, encoders."""
