//! Spec runner, scripted origins, oracle runs against a real nginx.
