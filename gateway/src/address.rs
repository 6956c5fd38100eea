//! Which addresses belong to the public internet: what a tenant may name, and what is connected to for it.

use std::net::IpAddr;

/// Whether an address belongs to the public internet, in whatever form it is written.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmarking = a == 198 && (b == 18 || b == 19);
            let protocols = a == 192 && b == 0 && c == 0;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || a >= 224
                || shared
                || benchmarking
                || protocols)
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let global = first & 0xe000 == 0x2000;
            let documentation = first == 0x2001 && second == 0xdb8;
            // 6to4 and Teredo carry an IPv4 address that was not looked at.
            let carries_v4 = first == 0x2002 || (first == 0x2001 && second == 0);
            global && !documentation && !carries_v4
        }
    }
}
