//! HTTP/2 at frame level: every rule of RFC 9113 and RFC 7541 that a server must enforce, the bounds, and both sides
//! talking to each other.

mod answers;
mod attacks;
mod compression;
mod flow;
mod frames;
mod message_rows;
mod peer;
mod requests;
mod rows;
mod rules;
