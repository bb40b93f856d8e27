//! What the tests need from the machine, installed with apt where that is possible.

use crate::spec::{find_in_path, find_nginx, root};
use crate::test::is_ci;
use std::process::Command;

/// Something the tests run: what it is for, the package, and whether it is there.
struct Tool {
    package: &'static str,
    why: &'static str,
    present: fn() -> bool,
}

const TOOLS: &[Tool] = &[
    Tool { package: "nginx-light", why: "proves the specs", present: || find_nginx().is_some() },
    Tool { package: "curl", why: "asks over HTTPS", present: || runs("curl", "--version") },
    OPENSSL,
    Tool {
        package: "pebble",
        why: "gives certificates",
        present: || find_in_path("pebble").is_some() && find_in_path("pebble-challtestsrv").is_some(),
    },
    Tool { package: "iproute2", why: "makes hosts in network namespaces", present: || runs("ip", "-V") },
    Tool {
        package: "nodejs",
        why: "runs the applications behind the proxy",
        present: || runs("node", "--version"),
    },
    STRACE,
    H2LOAD,
    Tool {
        package: "chromium",
        why: "is a browser that speaks HTTP/2",
        present: || runs("chromium", "--version"),
    },
    Tool {
        package: "python3-venv",
        why: "gets the gRPC library of Python a place of its own",
        present: || has_python("import ensurepip, venv"),
    },
];

const OPENSSL: Tool = Tool {
    package: "openssl",
    why: "makes certificates, and asks as OpenSSL does",
    present: || runs("openssl", "version"),
};

/// Where Python has the gRPC library, below the workspace.
const GRPC_FOLDER: &str = "target/grpc";

const NGINX: Tool = Tool {
    package: "nginx-light",
    why: "plays the back ends, and a peer",
    present: || find_nginx().is_some(),
};
const HAPROXY: Tool =
    Tool { package: "haproxy", why: "a peer", present: || find_in_path("haproxy").is_some() };
const WRK: Tool = Tool { package: "wrk", why: "makes the load", present: || find_in_path("wrk").is_some() };
const H2LOAD: Tool = Tool {
    package: "nghttp2-client",
    why: "makes load over HTTP/2",
    present: || find_in_path("h2load").is_some(),
};
const STRACE: Tool = Tool { package: "strace", why: "counts system calls", present: || runs("strace", "-V") };
const PERF: Tool =
    Tool { package: "linux-perf", why: "finds where the time goes", present: || runs("perf", "--version") };

/// Modules that files of nginx's own test suite ask for.
const PERL: &[Tool] = &[
    perl("libfcgi-perl", || has_perl("FCGI")),
    perl("libscgi-perl", || has_perl("SCGI")),
    perl("libcache-memcached-perl", || has_perl("Cache::Memcached")),
    perl("libprotocol-websocket-perl", || has_perl("Protocol::WebSocket")),
    perl("libgd-perl", || has_perl("GD")),
    perl("libio-socket-ssl-perl", || has_perl("IO::Socket::SSL")),
    perl("libcryptx-perl", || has_perl("Crypt::Misc")),
];

const fn perl(package: &'static str, present: fn() -> bool) -> Tool {
    Tool { package, why: "some of nginx's own tests ask for it", present }
}

/// Installs what nginx's own tests ask for.
pub fn install_for_compat() -> Result<(), String> {
    let missing: Vec<&Tool> = PERL.iter().filter(|tool| !(tool.present)()).collect();
    if missing.is_empty() { Ok(()) } else { install_missing(&missing) }
}

/// Installs what the tests need, or says what cannot be installed.
pub fn install() -> Result<(), String> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !(tool.present)()).collect();
    if !missing.is_empty() {
        install_missing(&missing)?;
    }
    install_grpc()?;
    if missing.is_empty() {
        println!("   all is here");
    }
    Ok(())
}

/// Gives Python the gRPC library in a folder of our own: Debian's is too old to be what people use.
fn install_grpc() -> Result<(), String> {
    let folder = root().join(GRPC_FOLDER);
    let python = folder.join("bin/python");
    let is_there =
        || Command::new(&python).args(["-c", "import grpc"]).output().is_ok_and(|o| o.status.success());
    if is_there() {
        return Ok(());
    }
    println!("   missing: grpcio (calls, and is called)");
    let _ = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
    let _ = Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio"]).status();
    match is_there() {
        true => Ok(()),
        false if is_ci() => Err("cannot install grpcio".to_owned()),
        false => {
            println!("   LEFT OUT: grpcio of Python could not be installed");
            Ok(())
        }
    }
}

/// Installs what a bench needs.
pub fn install_for_bench(haproxy: bool, syscalls: bool, perf: bool) -> Result<(), String> {
    let wanted = [
        (&NGINX, true),
        (&WRK, true),
        (&H2LOAD, true),
        (&OPENSSL, true),
        (&HAPROXY, haproxy),
        (&STRACE, syscalls),
        (&PERF, perf),
    ];
    let missing: Vec<&Tool> =
        wanted.iter().filter(|(tool, wanted)| *wanted && !(tool.present)()).map(|(tool, _)| *tool).collect();
    if missing.is_empty() { Ok(()) } else { install_missing(&missing) }
}

fn install_missing(missing: &[&Tool]) -> Result<(), String> {
    for tool in missing {
        println!("   missing: {} ({})", tool.package, tool.why);
    }
    if is_root() && runs("apt-get", "--version") {
        let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
        apt(&["update", "-q"])?;
        apt(&[&["install", "-q", "-y", "--no-install-recommends"][..], &packages].concat())?;
        // The package may have started nginx on port 80, which is somebody else's choice to make.
        if missing.iter().any(|tool| tool.package == "nginx-light") {
            let _ = Command::new("service").args(["nginx", "stop"]).status();
        }
    }
    let still: Vec<&str> = missing.iter().filter(|tool| !(tool.present)()).map(|tool| tool.package).collect();
    match still.as_slice() {
        [] => Ok(()),
        names if is_ci() => Err(format!("cannot install {}", names.join(", "))),
        names => {
            println!("   LEFT OUT: install {} for all of it", names.join(", "));
            Ok(())
        }
    }
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    println!("   apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments).status();
    match status.map_err(|e| e.to_string())?.success() {
        true => Ok(()),
        false => Err(format!("apt-get {} failed", arguments.join(" "))),
    }
}

fn runs(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

fn has_perl(module: &str) -> bool {
    let loaded = Command::new("perl").arg(format!("-M{module}")).args(["-e", "1"]).output();
    loaded.is_ok_and(|output| output.status.success())
}

fn has_python(statement: &str) -> bool {
    Command::new("python3").args(["-c", statement]).output().is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
