//! A DNS server on loopback, asked over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, AAAA, NAPTR, SOA, SRV};
use tokio::net::UdpSocket;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// What a server does with a question.
enum Reply {
    Records(Vec<RData>),
    /// No such records, with a zone that lets this be kept for so many seconds.
    None(u32),
    Code(ResponseCode),
    /// Bytes that are no message.
    Noise,
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Answers from a table, with a TTL of 300 s.
async fn serve(reply: impl Fn(&str, RecordType) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { return };
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let asked = query.queries[0].clone();
            let mut response = Message::response(query.metadata.id, OpCode::Query);
            response.metadata.message_type = MessageType::Response;
            response.add_query(asked.clone());
            match reply(&asked.name().to_ascii().to_lowercase(), asked.query_type()) {
                Reply::Records(records) => {
                    for data in records {
                        response.add_answer(Record::from_rdata(asked.name().clone(), 300, data));
                    }
                }
                Reply::None(ttl_s) => {
                    let soa = SOA::new(name("ns."), name("root."), 1, 1, 1, 1, ttl_s);
                    response.add_authority(Record::from_rdata(name("example."), 3_600, RData::SOA(soa)));
                }
                Reply::Code(code) => response.metadata.response_code = code,
                Reply::Noise => {
                    socket.send_to(&[0xFF; 40], from).await.unwrap();
                    continue;
                }
            }
            socket.send_to(&response.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

async fn resolved(server: SocketAddr, question: Question) -> Result<Answer, Unanswered> {
    let (inputs, mut received) = mpsc::channel(1);
    Resolver::new(vec![server], inputs, tokio::runtime::Handle::current())
        .resolve(PeerId(7), question.clone());
    match timeout(DEADLINE, received.recv()).await.unwrap().unwrap() {
        Input::Resolved { peer: PeerId(7), question: about, answer } if about == question => answer,
        other => panic!("{other:?}"),
    }
}

fn srv_of(priority: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 10, 5060, name(target)))
}

#[tokio::test]
async fn each_kind_of_record_is_read_with_its_time() {
    let bytes = |text: &str| text.as_bytes().into();
    let server = serve(move |asked, kind| match (asked, kind) {
        ("trunk.example.", RecordType::NAPTR) => Reply::Records(vec![
            RData::NAPTR(NAPTR::new(
                10,
                5,
                bytes("s"),
                bytes("SIP+D2U"),
                bytes(""),
                name("_sip._udp.Trunk.example."),
            )),
            RData::NAPTR(NAPTR::new(1, 5, bytes("u"), bytes("E2U+sip"), bytes("!^.*$!sip:x@y!"), name("."))),
        ]),
        ("_sip._udp.trunk.example.", RecordType::SRV) => {
            Reply::Records(vec![srv_of(2, "A.example."), srv_of(1, ".")])
        }
        ("a.example.", RecordType::A) => Reply::Records(vec![RData::A(A::new(192, 0, 2, 1))]),
        ("a.example.", RecordType::AAAA) => {
            Reply::Records(vec![RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))])
        }
        _ => Reply::None(60),
    })
    .await;
    let naptr = Naptr {
        order: 10,
        preference: 5,
        flags: "s".to_owned(),
        service: "SIP+D2U".to_owned(),
        replacement: "_sip._udp.trunk.example".to_owned(),
    };
    let srv = |priority, target: &str| Srv { priority, weight: 10, port: 5060, target: target.to_owned() };
    let ips = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec();
    for (question, records, ttl_s) in [
        (Question::Naptr("trunk.example".to_owned()), Records::Naptr(vec![naptr]), 300),
        (
            Question::Srv("_sip._udp.trunk.example".to_owned()),
            Records::Srv(vec![srv(2, "a.example"), srv(1, "")]),
            300,
        ),
        (Question::Addresses("a.example".to_owned()), Records::Addresses(ips), 300),
        (Question::Naptr("other.example".to_owned()), Records::Naptr(vec![]), 60),
        (Question::Addresses("other.example".to_owned()), Records::Addresses(vec![]), 60),
    ] {
        assert_eq!(resolved(server, question).await, Ok(Answer { records, ttl_s }));
    }
}

#[tokio::test]
async fn no_such_name_is_an_answer_and_trouble_is_none() {
    let server = serve(|asked, kind| match (asked, kind) {
        ("gone.example.", _) => Reply::Code(ResponseCode::NXDomain),
        ("noise.example.", _) => Reply::Noise,
        ("half.example.", RecordType::A) => Reply::Records(vec![RData::A(A::new(192, 0, 2, 1))]),
        ("refused.example.", _) => Reply::Code(ResponseCode::Refused),
        _ => Reply::Code(ResponseCode::ServFail),
    })
    .await;
    let gone = resolved(server, Question::Srv("gone.example".to_owned())).await;
    assert_eq!(gone, Ok(Answer { records: Records::Srv(vec![]), ttl_s: 0 }));
    let half = resolved(server, Question::Addresses("half.example".to_owned())).await;
    let one = Records::Addresses(vec!["192.0.2.1".parse().unwrap()]);
    assert_eq!(half, Ok(Answer { records: one, ttl_s: 300 }), "A is enough");
    for trouble in ["broken.example", "refused.example", "noise.example"] {
        assert_eq!(resolved(server, Question::Srv(trouble.to_owned())).await, Err(Unanswered), "{trouble}");
    }
    let long = "x".repeat(300);
    for no_name in ["", "a..b", &long] {
        assert_eq!(resolved(server, Question::Srv(no_name.to_owned())).await, Err(Unanswered), "{no_name}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_an_answer_too() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(resolved(nobody, Question::Naptr("trunk.example".to_owned())).await, Err(Unanswered));
}
