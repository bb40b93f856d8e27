//! The world: listeners, streams, timers, resolver, files, processes. The only crate with unsafe code.
