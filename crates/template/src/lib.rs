//! Strings with variables, compiled; the one regex type; tables behind map, geo and split_clients.
