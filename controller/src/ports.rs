//! Well-known ports of servers, named as in the IANA service name registry or, where it has none, by the product.

/// Which of the two port spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

use PortProtocol::{Tcp, Udp};

/// (port, protocol where the name is only right for one of them, name), by port.
const PORTS: &[(u16, Option<PortProtocol>, &str)] = &[
    (21, Some(Tcp), "ftp"),
    (22, Some(Tcp), "ssh"),
    (25, Some(Tcp), "smtp"),
    (53, None, "dns"),
    (67, Some(Udp), "dhcp"),
    (68, Some(Udp), "dhcp"),
    (69, Some(Udp), "tftp"),
    (80, Some(Tcp), "http"),
    (88, None, "kerberos"),
    (110, Some(Tcp), "pop3"),
    (111, None, "rpcbind"),
    (123, Some(Udp), "ntp"),
    (143, Some(Tcp), "imap"),
    (161, Some(Udp), "snmp"),
    (179, Some(Tcp), "bgp"),
    (389, None, "ldap"),
    (443, Some(Tcp), "https"),
    (443, Some(Udp), "quic"),
    (445, Some(Tcp), "smb"),
    (514, Some(Udp), "syslog"),
    (554, None, "rtsp"),
    (587, Some(Tcp), "submission"),
    (636, Some(Tcp), "ldaps"),
    (853, Some(Tcp), "dns-over-tls"),
    (993, Some(Tcp), "imaps"),
    (995, Some(Tcp), "pop3s"),
    (1433, Some(Tcp), "mssql"),
    (1521, Some(Tcp), "oracle"),
    (1883, Some(Tcp), "mqtt"),
    (2049, None, "nfs"),
    (2181, Some(Tcp), "zookeeper"),
    (2379, Some(Tcp), "etcd"),
    (3306, Some(Tcp), "mysql"),
    (3389, None, "rdp"),
    (4222, Some(Tcp), "nats"),
    (4317, Some(Tcp), "otlp-grpc"),
    (4318, Some(Tcp), "otlp-http"),
    (4789, Some(Udp), "vxlan"),
    (5060, None, "sip"),
    (5353, Some(Udp), "mdns"),
    (5432, Some(Tcp), "postgresql"),
    (5671, Some(Tcp), "amqps"),
    (5672, Some(Tcp), "amqp"),
    (6081, Some(Udp), "geneve"),
    (6379, Some(Tcp), "redis"),
    (6443, Some(Tcp), "kubernetes"),
    (6650, Some(Tcp), "pulsar"),
    (8080, Some(Tcp), "http-alt"),
    (8123, Some(Tcp), "clickhouse-http"),
    (8443, Some(Tcp), "https-alt"),
    (8883, Some(Tcp), "mqtts"),
    (9000, Some(Tcp), "clickhouse"),
    (9042, Some(Tcp), "cassandra"),
    (9090, Some(Tcp), "prometheus"),
    (9092, Some(Tcp), "kafka"),
    (9200, Some(Tcp), "elasticsearch"),
    (9876, Some(Tcp), "rocketmq"),
    (11211, None, "memcached"),
    (20880, Some(Tcp), "dubbo"),
    (27017, Some(Tcp), "mongodb"),
    (61616, Some(Tcp), "openwire"),
];

/// What a server's port is usually for. A hint for people: protocols are told by what is said, never by this.
pub fn port_name(protocol: PortProtocol, port: u16) -> Option<&'static str> {
    let first = PORTS.partition_point(|&(p, _, _)| p < port);
    PORTS
        .iter()
        .skip(first)
        .take_while(|&&(p, _, _)| p == port)
        .find(|&&(_, only, _)| only.is_none_or(|only| only == protocol))
        .map(|&(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(PORTS.is_sorted_by_key(|&(port, _, _)| port));
    }

    #[test]
    fn names_depend_on_the_protocol_where_they_must() {
        assert_eq!(port_name(Tcp, 443), Some("https"));
        assert_eq!(port_name(Udp, 443), Some("quic"));
        assert_eq!(port_name(Udp, 53), Some("dns"));
        assert_eq!(port_name(Tcp, 53), Some("dns"));
        assert_eq!(port_name(Udp, 3306), None);
        assert_eq!(port_name(Tcp, 49_152), None);
    }
}
