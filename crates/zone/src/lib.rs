//! Named state that outlives a reload.
