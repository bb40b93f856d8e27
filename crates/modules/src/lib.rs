//! The nginx modules, one file each, in one ordered list.
