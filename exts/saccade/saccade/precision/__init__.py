"""Networks in other precisions: an ONNX graph in, an ONNX graph out."""
