"""The wheel: policy, state, decision."""
