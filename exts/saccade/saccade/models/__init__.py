"""Networks, their dataset from the simulator, training; trained .onnx files beside them."""
