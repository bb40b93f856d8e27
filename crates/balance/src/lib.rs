//! Choosing a peer: weights, failures, every balancing method, the health state machine.
