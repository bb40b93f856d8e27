//! nginx.conf text to tree and back: lexer, parser, includes, printer, diagnostics. Knows no directive.
