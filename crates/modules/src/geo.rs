//! `geo`: a variable whose value depends on an address (nginx's manual, ngx_http_geo_module).

use bstr::{BString, ByteSlice};
use conf::{Node, Word};
use engine::module::{Install, cells, finish_nothing};
use engine::variables::Computed;
use engine::{Build, Declare, Module, Request};
use http::network::{self, Network};
use schema::value::argument;
use schema::{Directive, Problem, Services};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use template::{GeoBuilder, GeoTable, Names, RangeOutcome, Scope, VariableId};

struct Geo {
    /// The variable that holds the address; none: the client's.
    source: Option<VariableId>,
    table: GeoTable<BString>,
    /// Only IPv4 is known; everything else is looked up as 255.255.255.255.
    ranges: bool,
    proxies: Vec<Network>,
    proxy_recursive: bool,
    volatile: bool,
}

impl Computed for Geo {
    fn compute(&self, request: &mut Request, out: &mut Vec<u8>) -> bool {
        let address = self.address(request).map(|address| address.to_canonical());
        let address = address.filter(|address| !self.ranges || address.is_ipv4());
        out.extend_from_slice(self.table.find(address).map(|value| &value[..]).unwrap_or_default());
        true
    }

    fn volatile(&self) -> bool {
        self.volatile
    }
}

impl Geo {
    fn address(&self, request: &mut Request) -> Option<IpAddr> {
        let address = match self.source {
            None => request.client_address().ip()?,
            Some(variable) => {
                let mut text = Vec::new();
                request.variable(variable, &mut text);
                network::ip(&text)?
            }
        };
        if self.proxies.is_empty() {
            return Some(address);
        }
        let fields: Vec<&[u8]> = request.head.fields.all(b"X-Forwarded-For").collect();
        let trusted = |address| self.proxies.iter().any(|proxy| proxy.contains(address));
        let forwarded = network::forwarded(address, &fields, trusted, self.proxy_recursive);
        Some(forwarded.map_or(address, |address| address.ip()))
    }
}

/// A block being read.
#[derive(Default)]
struct Reading {
    table: GeoBuilder<BString>,
    ranges: bool,
    /// A network was given, so that it is too late for `ranges`.
    networks: bool,
    proxies: Vec<Network>,
    proxy_recursive: bool,
    volatile: bool,
}

fn read(_conf: &mut (), node: &Node, build: &mut Build) -> Result<(), Problem> {
    let (source, target) = match &node.args[..] {
        [source, target] => (Some(source), target),
        _ => (None, argument(node, 0)?),
    };
    let source = source.map(|word| {
        let name = crate::computed::variable_name(word)?;
        let unknown = |_| Problem::new(format!("unknown \"{}\" variable", name.as_bstr())).on(word);
        build.variable(name).map_err(unknown)
    });
    let source = source.transpose()?;
    let name = crate::computed::variable_name(target)?;
    let mut reading = Reading::default();
    for line in crate::computed::lines(node, build) {
        if let Err(problem) = reading.line(line, build) {
            build.refuse(problem, line);
        }
    }
    let geo = Geo {
        source,
        table: reading.table.build(),
        ranges: reading.ranges,
        proxies: reading.proxies,
        proxy_recursive: reading.proxy_recursive,
        volatile: reading.volatile,
    };
    build.define(name, Arc::new(geo)).map_err(|problem| problem.on(target))?;
    Ok(())
}

impl Reading {
    fn line(&mut self, line: &Node, build: &mut Build) -> Result<(), Problem> {
        match (&line.name.text[..], &line.args[..]) {
            (b"ranges", []) => {
                if self.networks {
                    let text = "the \"ranges\" directive must be the first directive inside \"geo\" block";
                    return Err(Problem::new(text));
                }
                self.ranges = true;
            }
            (b"proxy_recursive", []) => self.proxy_recursive = true,
            (b"volatile", []) => self.volatile = true,
            (b"proxy", [network]) => self.proxies.push(parse_network(network, line, build)?),
            (b"default", [value]) => self.add_default(value, line, build),
            (b"delete", [from]) if self.ranges => {
                let (first, last) = parse_range(from)?;
                if !self.table.remove_range(first, last) {
                    let text = format!("no address range \"{}\" to delete", from.text);
                    build.warn(Problem::new(text).on(from), line);
                }
            }
            (b"delete", [from]) => {
                let network = parse_network(from, line, build)?;
                if !self.table.remove_network(network.address(), network.prefix_bits()) {
                    let text = format!("no network \"{}\" to delete", from.text);
                    build.warn(Problem::new(text).on(from), line);
                }
            }
            (_, [value]) if self.ranges => self.range(&line.name, value, line, build)?,
            (_, [value]) => {
                let network = parse_network(&line.name, line, build)?;
                self.networks = true;
                let (address, bits) = (network.address(), network.prefix_bits());
                let earlier = self.table.insert_network(address, bits, value.text.clone());
                self.duplicate("network", earlier, value, line, build);
            }
            _ => return Err(Problem::new("invalid number of the geo parameters")),
        }
        Ok(())
    }

    fn add_default(&mut self, value: &Word, line: &Node, build: &mut Build) {
        if !self.ranges {
            // Two networks that hold everything, and nginx warns of each.
            for everything in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                let earlier = self.table.insert_network(everything, 0, value.text.clone());
                self.duplicate("network", earlier, value, line, build);
            }
            self.networks = true;
            return;
        }
        let earlier = self.table.default_value(value.text.clone());
        if let Some(old) = earlier.and_then(|number| self.table.value(number)) {
            let text = format!("duplicate default geo range value: \"{}\", old value: \"{old}\"", value.text);
            build.warn(Problem::new(text).on(value), line);
        }
    }

    fn range(&mut self, range: &Word, value: &Word, line: &Node, build: &mut Build) -> Result<(), Problem> {
        let (first, last) = parse_range(range)?;
        match self.table.insert_range(first, last, value.text.clone()) {
            Ok(RangeOutcome::Added) => {}
            Ok(RangeOutcome::Duplicate(number)) => {
                self.duplicate("range", Some(number), value, line, build);
            }
            Err(other) => {
                let (first, last) = (other.first, other.last);
                let text = format!("range \"{}\" overlaps \"{first}-{last}\"", range.text);
                return Err(Problem::new(text).on(range));
            }
        }
        Ok(())
    }

    /// Warns of a value that takes the place of an earlier one.
    fn duplicate(&self, kind: &str, earlier: Option<usize>, value: &Word, line: &Node, build: &mut Build) {
        if let Some(old) = earlier.and_then(|number| self.table.value(number)) {
            let (name, value_text) = (&line.name.text, &value.text);
            let text = format!("duplicate {kind} \"{name}\", value: \"{value_text}\", old value: \"{old}\"");
            build.warn(Problem::new(text).on(&line.name), line);
        }
    }
}

fn parse_network(word: &Word, line: &Node, build: &mut Build) -> Result<Network, Problem> {
    let Some((network, low_bits)) = Network::parse(&word.text) else {
        return Err(Problem::new(format!("invalid network \"{}\"", word.text)).on(word));
    };
    if low_bits {
        build.warn(Problem::new(format!("low address bits of {} are meaningless", word.text)).on(word), line);
    }
    Ok(network)
}

fn parse_range(word: &Word) -> Result<(Ipv4Addr, Ipv4Addr), Problem> {
    // 255.255.255.255 is nginx's mark of an error, and so not allowed as an end.
    let end = |text: &[u8]| match Network::parse(text)?.0 {
        network if network.prefix_bits() != 32 || text.contains(&b'/') => None,
        network => match network.address() {
            IpAddr::V4(address) => Some(address).filter(|address| *address != Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => None,
        },
    };
    let ends = word.text.split_once_str("-").and_then(|(first, last)| Some((end(first)?, end(last)?)));
    let ends = ends.filter(|(first, last)| first <= last);
    ends.ok_or_else(|| Problem::new(format!("invalid range \"{}\"", word.text)).on(word))
}

/// The module.
pub static MODULE: Module = Module {
    name: "geo",
    directives: &[Directive {
        name: "geo",
        default: "",
        set: &Declare::<()>::new(read),
        doc: "A variable whose value depends on the client's address.",
    }],
    families: &[],
    variables: &[],
    cells: cells::<()>,
    install: Install::Never,
    finish: finish_nothing,
};
