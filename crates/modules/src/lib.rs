//! The nginx modules, one file each.
//!
//! Adding one: write its file, add it to [`MODULES`], write its `spec/*.md`. The list's order is the order in
//! which modules run within a phase, and in which filters see a response; order is behaviour, so it stays visible.

#![forbid(unsafe_code)]

mod access;
mod acme;
mod addition;
mod auth_basic;
mod auth_request;
mod autoindex;
mod charset;
mod cidr;
mod computed;
mod empty_gif;
mod files;
mod geo;
mod grpc;
mod gunzip;
mod gzip;
mod gzip_static;
mod headers;
mod index;
mod limit_conn;
mod limit_req;
mod log;
mod map;
mod mime;
mod mirror;
mod passing;
mod proxy;
mod random_index;
mod realip;
mod referer;
mod rewrite;
mod secure_link;
mod split_clients;
mod ssl;
mod static_files;
mod stub_status;
mod sub;
mod try_files;
mod upstream;
mod userid;
mod zones;

use engine::Module;

/// All modules in order of execution.
pub static MODULES: &[&Module] = &[
    &acme::MODULE,
    &ssl::MODULE,
    &upstream::MODULE,
    &map::MODULE,
    &geo::MODULE,
    &split_clients::MODULE,
    &referer::MODULE,
    &secure_link::MODULE,
    &rewrite::MODULE,
    &realip::MODULE,
    &limit_req::MODULE,
    &limit_conn::MODULE,
    &access::MODULE,
    &auth_basic::MODULE,
    &auth_request::MODULE,
    &try_files::MODULE,
    &mirror::MODULE,
    &empty_gif::MODULE,
    &proxy::MODULE,
    &grpc::MODULE,
    &stub_status::MODULE,
    &random_index::MODULE,
    &index::MODULE,
    &autoindex::MODULE,
    &gzip_static::MODULE,
    &static_files::MODULE,
    &headers::MODULE,
    &gunzip::MODULE,
    &userid::MODULE,
    &addition::MODULE,
    &sub::MODULE,
    &charset::MODULE,
    &gzip::accept::MODULE,
    &gzip::MODULE,
    &log::MODULE,
];
