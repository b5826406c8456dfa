//! Byte strings of a batch in one buffer, each rewritten in place while it fits.
//!
//! A string that grows gets twice the room, so the buffer stays within a small factor of what is alive in it.

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cell {
    at: u32,
    len: u32,
    room: u32,
}

impl Cell {
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
}

impl Arena {
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Takes over a column as it came from the host.
    pub fn adopt(&mut self, data: Vec<u8>, offsets: &[u32], cells: &mut Vec<Cell>) {
        self.bytes = data;
        cells.clear();
        cells.extend(offsets.windows(2).map(|pair| {
            let len = pair[1] - pair[0];
            Cell { at: pair[0], len, room: len }
        }));
    }

    #[inline]
    pub fn get(&self, cell: Cell) -> &[u8] {
        &self.bytes[cell.at as usize..(cell.at + cell.len) as usize]
    }

    pub fn put(&mut self, cell: &mut Cell, value: &[u8]) {
        let len = value.len() as u32;
        if len > cell.room {
            // What is new gets exactly its size: most values never grow.
            let room = if cell.room == 0 { len } else { len.max(cell.room * 2) };
            let at = self.bytes.len();
            assert!(at + room as usize <= u32::MAX as usize, "one batch can't hold 4 GiB of state");
            self.bytes.resize(at + room as usize, 0);
            (cell.at, cell.room) = (at as u32, room);
        }
        cell.len = len;
        self.bytes[cell.at as usize..(cell.at + len) as usize].copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_rewritten_in_place_while_it_fits_and_moves_when_it_grows() {
        let (mut arena, mut cells) = (Arena::default(), Vec::new());
        arena.adopt(b"abcde".to_vec(), &[0, 3, 3, 5], &mut cells);
        assert_eq!(cells.iter().map(|cell| arena.get(*cell)).collect::<Vec<_>>(), [&b"abc"[..], b"", b"de"]);
        arena.put(&mut cells[0], b"x");
        arena.put(&mut cells[1], b"new");
        arena.put(&mut cells[2], b"longer");
        assert_eq!(cells.iter().map(|cell| arena.get(*cell)).collect::<Vec<_>>(), [&b"x"[..], b"new", b"longer"]);
    }
}
