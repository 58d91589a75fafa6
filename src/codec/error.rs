//! Why bytes are not a packet, and the reason code to answer with.
