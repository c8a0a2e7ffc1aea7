"""From tensors to NNR units and back, and the module ``coder`` of ISO/IEC 15938-18."""
