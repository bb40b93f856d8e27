//! HTTP vocabulary and sans-I/O codecs.
