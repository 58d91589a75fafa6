//! The broker core against the standard, rule by rule. `spec/coverage.tsv` tells which normative statement
//! is shown where.

mod world;

mod spec {
    mod connect;
    mod gating;
    mod limits;
    mod session;
    mod shared;
    mod size;
}
