//! What an issuer answers, whatever it says, is read or refused, and what is read keeps to its form:
//! `cargo +nightly fuzz run acme_answers`.

#![no_main]

use acme::answer::{Authorization, Directory, Order, Window, alternates, json, retry_after_seconds};
use acme::{Identifier, Problem, Url, order_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(from) = Url::parse("https://issuer.test:14000/directory") else { return };
    let _ = (Directory::read(data, &from), Order::read(data, &from));
    if let Some(window) = Window::read(data) {
        assert!(window.start < window.end);
    }
    if let Some(authorization) = Authorization::read(data, &from) {
        // Tokens become names of files and pages.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(authorization.challenges.iter().all(|one| one.token.bytes().all(is_plain)));
    }
    if let Some(problem) = json(data).as_ref().and_then(Problem::of) {
        assert!(!problem.to_string().contains(['\r', '\n', '\0']));
    }
    let _ = retry_after_seconds(data, 0);
    let Ok(text) = std::str::from_utf8(data) else { return };
    alternates(text, &from);
    // An address is written as it was read.
    if let Some(url) = Url::parse(text) {
        let again = Url::parse(&url.to_string());
        assert_eq!(again, Some(url));
    }
    if let Ok(identifiers) = Identifier::parse(text) {
        let name = order_name(&identifiers, acme::KeyKind::default());
        assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
    }
});
