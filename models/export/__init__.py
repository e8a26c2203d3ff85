"""From a trained model to one ONNX file, and the proof that both answer alike."""
