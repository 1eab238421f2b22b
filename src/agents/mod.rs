//! Agents: inputs to one typed output, no side effect.
