//! What goes when a store is full: whole blocks, oldest first. The newest block of a dataflow stays while others can go, and what
//! went is counted, so that readers are told.

use crate::{
    error::LogStoreError,
    store::{Flow, Tables, block_bytes, key},
};
use dora_remote_protocol::ids::DataflowId;
use redb::ReadableTable;
use uuid::Uuid;

impl Tables<'_> {
    /// Evicts the oldest blocks of one dataflow until it has at most `cap` bytes or one block.
    pub(crate) fn evict_of_dataflow(&mut self, id: DataflowId, flow: &mut Flow, cap: u64) -> Result<(), LogStoreError> {
        while flow.bytes > cap {
            let first_seq = {
                let mut blocks = self.blocks.range((key(id), 0)..=(key(id), u64::MAX))?;
                let (Some(first), Some(_)) = (blocks.next().transpose()?, blocks.next().transpose()?) else {
                    return Ok(());
                };
                first.0.value().1
            };
            self.evict(id, flow, first_seq)?;
        }
        Ok(())
    }

    /// Evicts the oldest blocks of all until there are at most `cap` bytes or one block.
    pub(crate) fn evict_of_all(&mut self, cap: u64) -> Result<(), LogStoreError> {
        while self.total()? > cap {
            let (id, first_seq) = {
                let mut ages = self.ages.iter()?;
                let (Some(first), Some(_)) = (ages.next().transpose()?, ages.next().transpose()?) else {
                    return Ok(());
                };
                first.1.value()
            };
            let id = DataflowId(Uuid::from_u128(id));
            let mut flow = self.flow(id)?;
            self.evict(id, &mut flow, first_seq)?;
            self.put_flow(id, flow)?;
        }
        Ok(())
    }

    fn evict(&mut self, id: DataflowId, flow: &mut Flow, first_seq: u64) -> Result<(), LogStoreError> {
        let evicted = self.blocks.remove((key(id), first_seq))?.map(|row| {
            let (last_seq, age, lines, bytes) = row.value();
            (last_seq, age, lines, block_bytes(bytes))
        });
        let Some((last_seq, age, lines, bytes)) = evicted else {
            return Err(LogStoreError::Block {
                dataflow: id,
                first_seq,
                reason: "it is listed and does not exist".to_owned(),
            });
        };
        self.ages.remove(age)?;
        self.times.evict(id, first_seq)?;
        flow.evicted_to = flow.evicted_to.max(last_seq);
        flow.evicted_lines += lines;
        flow.bytes = flow.bytes.saturating_sub(bytes);
        self.set_total(self.total()?.saturating_sub(bytes))
    }
}
