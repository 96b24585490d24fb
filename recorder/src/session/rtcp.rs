//! RTCP between the legs (RFC 3550 §6), in the identities that each leg knows (§7.2: a translator that
//! changes sequence and timestamp spaces must change the reports with them).
//!
//! | received | towards the other leg |
//! |---|---|
//! | SR | SR of our SSRC there: timestamp translated, NTP time as it was, our own counts; RR if the source is not the one we pass on |
//! | RR | RR of our SSRC there |
//! | report block on our SSRC | block on the source behind it, in its numbers; LSR and DLSR as they were |
//! | any other report block | left out |
//! | SDES | one of ours with a random CNAME (RFC 7022 §4.2): the peer's names its host and user |
//! | BYE | left out: our SSRC lives as long as the call |
//! | APP, XR, feedback (RFC 4585) | left out: they name SSRCs and numbers inside |
//! | malformed | nothing, and counted |
//!
//! A few packets a minute: the report blocks may use the heap.

use rtcp_types::{
    Compound, Packet, ReceiverReport, ReportBlock, ReportBlockBuilder, RtcpPacketWriterExt, RtcpParseError,
    RtcpWriteError, Sdes, SdesChunk, SdesItem, SenderReport,
};

use super::numbering::Numbering;
use super::quality::Reception;

/// Room for what we send: a report with 31 blocks and an SDES is under 900 bytes.
pub(super) const REPORT_BYTES: usize = 1_024;

/// Why a compound packet was not passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RtcpError {
    #[error("malformed RTCP")]
    Malformed(#[from] RtcpParseError),
    #[error("RTCP report cannot be written")]
    Unwritable(#[from] RtcpWriteError),
}

/// What a translation needs of both directions.
pub(super) struct Translation<'a> {
    /// Our numbering towards the leg that the report goes to.
    pub(super) onward: &'a Numbering,
    /// Our numbering towards the leg that the report comes from: what its blocks are about.
    pub(super) back: &'a Numbering,
    /// Reception from the leg that the report goes to: the source behind `back`.
    pub(super) source: &'a Reception,
    /// Our CNAME.
    pub(super) cname: &'a str,
}

impl Translation<'_> {
    /// Translates a compound packet into `output`; its length, 0 if nothing of it is to be passed on.
    pub(super) fn translate(&self, packet: &[u8], output: &mut [u8]) -> Result<usize, RtcpError> {
        let mut written = 0;
        for part in Compound::parse(packet)? {
            let free = output.get_mut(written..).unwrap_or_default();
            written += match part? {
                Packet::Sr(report) => self.sender_report(&report, free)?,
                Packet::Rr(report) => self.receiver_report(report.report_blocks(), free)?,
                _ => 0,
            };
        }
        if written == 0 {
            return Ok(0);
        }
        let item = SdesItem::builder(SdesItem::CNAME, self.cname);
        let chunk = SdesChunk::builder(self.onward.ssrc()).add_item(item);
        let free = output.get_mut(written..).unwrap_or_default();
        Ok(written + Sdes::builder().add_chunk(chunk).write_into(free)?)
    }

    fn sender_report(&self, report: &SenderReport<'_>, output: &mut [u8]) -> Result<usize, RtcpError> {
        let translated = self.onward.timestamp_of(report.ssrc(), report.rtp_timestamp());
        let Some(timestamp) = translated else {
            return self.receiver_report(report.report_blocks(), output);
        };
        let (packets, octets) = self.onward.sent();
        let ours = SenderReport::builder(self.onward.ssrc())
            .ntp_timestamp(report.ntp_timestamp())
            .rtp_timestamp(timestamp)
            .packet_count(packets)
            .octet_count(octets);
        let blocks = report.report_blocks().filter_map(|block| self.block(&block));
        Ok(blocks.fold(ours, |ours, block| ours.add_report_block(block)).write_into(output)?)
    }

    fn receiver_report<'r>(
        &self,
        blocks: impl Iterator<Item = ReportBlock<'r>>,
        output: &mut [u8],
    ) -> Result<usize, RtcpError> {
        let ours = ReceiverReport::builder(self.onward.ssrc());
        let blocks = blocks.filter_map(|block| self.block(&block));
        Ok(blocks.fold(ours, |ours, block| ours.add_report_block(block)).write_into(output)?)
    }

    fn block(&self, block: &ReportBlock<'_>) -> Option<ReportBlockBuilder> {
        if block.ssrc() != self.back.ssrc() {
            return None;
        }
        let (ssrc, sequence) = self.back.source_of(block.extended_sequence_number() as u16)?;
        let extended = self.source.extend(ssrc, sequence)?;
        Some(
            ReportBlock::builder(ssrc)
                .fraction_lost(block.fraction_lost())
                .cumulative_lost(block.cumulative_lost())
                .extended_sequence_number(extended)
                .interarrival_jitter(block.interarrival_jitter())
                .last_sender_report_timestamp(block.last_sender_report_timestamp())
                .delay_since_last_sender_report_timestamp(block.delay_since_last_sender_report_timestamp()),
        )
    }
}
