"""From tensors to NNR units and back."""
