"""DeepCABAC (clause 10): a readable reference and a native engine with the same interface."""
