//! `stub_status`: how many connections and requests there are (nginx's manual, ngx_http_stub_status_module).

use conf::Node;
use engine::module::{Declare, Install, Variable, cells, finish_nothing};
use engine::thread::Statistics;
use engine::{Build, Flow, Installer, Module, Reply, Request, Source, Step};
use http::{Method, Status};
use schema::{Directive, Inherit, Places, Problem};
use std::io::Write;
use std::sync::atomic::Ordering;

#[derive(Default)]
struct Conf {
    here: Inherit<()>,
}

pub static MODULE: Module = Module {
    name: "stub_status",
    directives: &[Directive {
        name: "stub_status",
        default: "",
        set: &Declare::<Conf>::new(turn_on),
        doc: "Answers with a page of counters.",
    }],
    families: &[],
    variables: &[
        Variable::plain(
            "connections_active",
            |request, out| print(out, Counts::of(request).active),
            "Connections that are open.",
        ),
        Variable::plain(
            "connections_reading",
            |request, out| print(out, Counts::of(request).reading),
            "Connections whose head is being read.",
        ),
        Variable::plain(
            "connections_writing",
            |request, out| print(out, Counts::of(request).writing),
            "Connections that are being answered.",
        ),
        Variable::plain(
            "connections_waiting",
            |request, out| print(out, Counts::of(request).waiting),
            "Connections that wait for a request.",
        ),
    ],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

fn turn_on(conf: &mut Conf, node: &Node, _build: &mut Build) -> Result<(), Problem> {
    conf.here.put((), Some(node.name.span));
    Ok(())
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    // A server's own handler answers where no location does; it is not passed on to locations.
    if installer.conf::<Conf>().here.is_set() && installer.place.meets(Places::LOCATION.and(Places::SERVER)) {
        installer.handler(Page);
    }
    Ok(())
}

struct Page;

impl Step for Page {
    fn run(&self, request: &mut Request) -> Flow {
        if !matches!(request.method, Method::Get | Method::Head) {
            return Flow::Deny(Status::NOT_ALLOWED);
        }
        let body = Counts::of(request).page();
        request.response.content_type.clear();
        request.response.content_type.extend_from_slice(b"text/plain");
        request.response.content_length = Some(body.len() as u64);
        Flow::Reply(Reply { status: Status::OK, source: Source::Bytes(body) })
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Default)]
struct Counts {
    accepted: u64,
    handled: u64,
    requests: u64,
    active: u64,
    reading: u64,
    writing: u64,
    waiting: u64,
}

impl Counts {
    fn of(request: &Request) -> Counts {
        let Statistics { accepted, handled, requests, active, waiting, reading, .. } =
            &request.thread.statistics;
        let now =
            |count: &std::sync::atomic::AtomicI64| u64::try_from(count.load(Ordering::Relaxed)).unwrap_or(0);
        let (active, reading, waiting) = (now(active), now(reading), now(waiting));
        Counts {
            accepted: accepted.load(Ordering::Relaxed),
            handled: handled.load(Ordering::Relaxed),
            requests: requests.load(Ordering::Relaxed),
            active,
            reading,
            writing: active.saturating_sub(reading + waiting),
            waiting,
        }
    }

    /// nginx's page, to the byte: it is what monitoring reads.
    fn page(&self) -> Vec<u8> {
        let Counts { accepted, handled, requests, active, reading, writing, waiting } = self;
        let mut page = Vec::with_capacity(160);
        // Writing into a Vec cannot fail.
        let _ = writeln!(page, "Active connections: {active} ");
        let _ = write!(page, "server accepts handled requests\n {accepted} {handled} {requests} \n");
        let _ = writeln!(page, "Reading: {reading} Writing: {writing} Waiting: {waiting} ");
        page
    }
}

fn print(out: &mut Vec<u8>, value: u64) -> bool {
    write!(out, "{value}").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_nginx_page() {
        let counts =
            Counts { accepted: 12, handled: 11, requests: 30, active: 5, reading: 1, writing: 2, waiting: 2 };
        let expected = "Active connections: 5 \nserver accepts handled requests\n 12 11 30 \n\
            Reading: 1 Writing: 2 Waiting: 2 \n";
        assert_eq!(bstr::BStr::new(&counts.page()), expected);
    }
}
