//! The broker core against the standard, rule by rule. `spec/coverage.tsv` tells which normative statement
//! is shown where.

mod table;
mod world;

mod spec {
    mod access;
    mod alias;
    mod codes;
    mod conformance;
    mod connect;
    mod coverage;
    mod disconnect;
    mod drops;
    mod durability;
    mod expiry;
    mod flow_control;
    mod full_disk;
    mod gating;
    mod keep_alive;
    mod limits;
    mod malformed;
    mod model;
    mod multi_shard;
    mod ordering;
    mod overflow;
    mod pace;
    mod properties;
    mod publish;
    mod restart;
    mod retained;
    mod session;
    mod shared;
    mod size;
    mod spill;
    mod states;
    mod subscribe;
    mod unsubscribe;
    mod will;
}
