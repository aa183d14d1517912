//! Names of record types, response codes and operations (IANA, "Domain Name System (DNS) Parameters").

use std::borrow::Cow;

macro_rules! numbers {
    ($(#[doc = $doc:literal])* $function:ident, $($number:literal = $name:literal,)*) => {
        $(#[doc = $doc])*
        pub(super) fn $function(number: u16) -> Option<&'static str> {
            match number { $($number => Some($name),)* _ => None }
        }
    };
}

numbers! {
    /// A record or query type.
    known_type,
    1 = "A", 2 = "NS", 3 = "MD", 4 = "MF", 5 = "CNAME", 6 = "SOA", 7 = "MB", 8 = "MG", 9 = "MR", 10 = "NULL", 11 = "WKS",
    12 = "PTR", 13 = "HINFO", 14 = "MINFO", 15 = "MX", 16 = "TXT", 17 = "RP", 18 = "AFSDB", 19 = "X25", 20 = "ISDN",
    21 = "RT", 22 = "NSAP", 24 = "SIG", 25 = "KEY", 26 = "PX", 27 = "GPOS", 28 = "AAAA", 29 = "LOC", 33 = "SRV",
    35 = "NAPTR", 36 = "KX", 37 = "CERT", 38 = "A6", 39 = "DNAME", 41 = "OPT", 42 = "APL", 43 = "DS", 44 = "SSHFP",
    45 = "IPSECKEY", 46 = "RRSIG", 47 = "NSEC", 48 = "DNSKEY", 49 = "DHCID", 50 = "NSEC3", 51 = "NSEC3PARAM",
    52 = "TLSA", 53 = "SMIMEA", 55 = "HIP", 59 = "CDS", 60 = "CDNSKEY", 61 = "OPENPGPKEY", 62 = "CSYNC",
    63 = "ZONEMD", 64 = "SVCB", 65 = "HTTPS", 66 = "DSYNC", 99 = "SPF", 104 = "NID", 105 = "L32", 106 = "L64", 107 = "LP",
    108 = "EUI48", 109 = "EUI64", 249 = "TKEY", 250 = "TSIG", 251 = "IXFR", 252 = "AXFR", 253 = "MAILB",
    254 = "MAILA", 255 = "ANY", 256 = "URI", 257 = "CAA", 258 = "AVC", 259 = "DOA", 260 = "AMTRELAY", 261 = "RESINFO",
    262 = "WALLET", 32768 = "TA", 32769 = "DLV",
}

numbers! {
    /// A response code, extended ones (RFC 6891) too.
    known_rcode,
    0 = "NOERROR", 1 = "FORMERR", 2 = "SERVFAIL", 3 = "NXDOMAIN", 4 = "NOTIMP", 5 = "REFUSED", 6 = "YXDOMAIN",
    7 = "YXRRSET", 8 = "NXRRSET", 9 = "NOTAUTH", 10 = "NOTZONE", 11 = "DSOTYPENI", 16 = "BADVERS", 17 = "BADKEY",
    18 = "BADTIME", 19 = "BADMODE", 20 = "BADNAME", 21 = "BADALG", 22 = "BADTRUNC", 23 = "BADCOOKIE",
}

numbers! {
    /// What a message asks for, when that is not a plain query.
    operation,
    1 = "IQUERY", 2 = "STATUS", 4 = "NOTIFY", 5 = "UPDATE", 6 = "DSO",
}

/// The name of a type; unknown ones as in RFC 3597.
pub(super) fn type_name(number: u16) -> Cow<'static, str> {
    known_type(number).map_or_else(|| format!("TYPE{number}").into(), Cow::from)
}

/// The name of a response code.
pub(super) fn rcode_name(number: u16) -> Cow<'static, str> {
    known_rcode(number).map_or_else(|| format!("RCODE{number}").into(), Cow::from)
}
