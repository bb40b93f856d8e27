//! The life of a request: module contract, plan, exchange, upstream calls, pump.
