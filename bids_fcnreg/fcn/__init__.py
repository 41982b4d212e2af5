"""The registration engine: PyTorch, without knowledge of BIDS or Nipype."""
