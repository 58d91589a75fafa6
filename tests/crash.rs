//! The real program, killed and started again: what it acknowledged is there.

mod crash {
    mod broker;
    mod client;
    mod killed;
}
