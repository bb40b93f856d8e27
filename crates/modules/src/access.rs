//! `allow` and `deny` (nginx's manual, ngx_http_access_module): the first rule that speaks of the client decides.

use crate::cidr::{Network, invalid_parameter};
use conf::{Level, Node};
use engine::core::values::Satisfy;
use engine::module::{Install, cells, finish_nothing};
use engine::{Flow, Installer, Module, Phase, Request, Step};
use http::Status;
use net::address::Address;
use schema::value::argument;
use schema::{Directive, Inherit, Problem, Services, Value, list};

#[derive(Default)]
struct Conf {
    rules: Inherit<Vec<Rule>>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    /// None is everybody.
    network: Option<Network>,
    denies: bool,
}

pub static MODULE: Module = Module {
    name: "access",
    directives: &[
        Directive { name: "allow", default: "", set: list!(Conf.rules), doc: "Clients that may." },
        Directive { name: "deny", default: "", set: list!(Conf.rules), doc: "Clients that may not." },
    ],
    families: &[],
    variables: &[],
    cells: cells::<Conf>,
    install: Install::WhereSet(install),
    finish: finish_nothing,
};

impl Value for Rule {
    fn parse(node: &Node, services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let network = match &word.text[..] {
            b"all" => None,
            b"unix:" => Some(Network::Unix),
            _ => Some(Network::of_word(word, node, services).ok_or_else(|| invalid_parameter(word))?),
        };
        Ok(Rule { network, denies: node.name.text == "deny" })
    }
}

fn install(installer: &mut Installer) -> Result<(), Problem> {
    if !installer.conf::<Conf>().rules.is_empty() {
        let rules = installer.once(|conf: &Conf, _| Rules(conf.rules.to_vec()));
        installer.shared_step(Phase::Access, rules);
    }
    Ok(())
}

struct Rules(Vec<Rule>);

impl Rules {
    /// Does the first rule that speaks of this address deny it? None speaks of it: nothing.
    fn denies(&self, address: &Address) -> Option<bool> {
        let speaks = |rule: &&Rule| rule.network.is_none_or(|network| network.contains(address));
        self.0.iter().find(speaks).map(|rule| rule.denies)
    }
}

impl Step for Rules {
    fn run(&self, request: &mut Request) -> Flow {
        match self.denies(request.client_address()) {
            None => Flow::Next,
            Some(false) => Flow::Allow,
            Some(true) => {
                // With `satisfy any` there is nothing to say before all modules have spoken.
                if *request.plan.core.satisfy == Satisfy::All {
                    request.log_error(Level::Error, format_args!("access forbidden by rule"));
                }
                Flow::Deny(Status::FORBIDDEN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_speaks_decides() {
        let rule = |text: &str, denies| Rule {
            network: (text != "all").then(|| Network::parse(text.as_bytes()).expect(text).0),
            denies,
        };
        let rules = Rules(vec![
            rule("10.0.0.1", true),
            rule("10.0.0.0/8", false),
            rule("::1", false),
            rule("all", true),
        ]);
        for (address, expected) in [
            ("10.0.0.1:1", true),
            ("10.0.0.2:1", false),
            ("[::1]:1", false),
            ("[::2]:1", true),
            ("1.1.1.1:1", true),
        ] {
            let parsed = Address::Inet(address.parse().expect(address));
            assert_eq!(rules.denies(&parsed), Some(expected), "{address}");
        }
        assert_eq!(rules.denies(&Address::unix(b"")), Some(true));
        assert_eq!(Rules(vec![rule("10.0.0.0/8", true)]).denies(&Address::unix(b"")), None);
    }
}
