//! Sparse ratings and the all-pairs cosine similarity of their rows, the best few of each row.
//!
//! [`cosine::top_k`] is the kernel, [`mod@reference`] the same in plain dense loops; both give the same
//! bytes. Items are the rows of the transposed matrix, so one kernel serves users and items.
//!
//! # How all pairs meet
//!
//! The similarity of two rows is a sum over the columns that both have. Rows are put in the order of their lengths, the
//! longest first, and cut into *tiles* of up to 2,048. A job takes one tile, whose rows are its *lanes*, and some
//! thousand rows that come after it; each of these meets all lanes at once:
//!
//! ```text
//!            lanes (a tile)                      by column, of the tile
//!          ┌────────────────┐
//!          │ every row with │  tile    column │ in so many lanes │ held as
//!          │ all the others │  itself  ───────┼──────────────────┼─────────────────────────────────
//!  rows,   │                │             0   │  900 of 1,024    │ a cell for each lane   ┐ a block,
//!  one by  ├────────────────┤             1   │  700             │ a cell for each lane   │ in the
//!  one     │                │            ⋮    │                  │                        ┘ L2 cache
//!    │     │ row ──────────▶│          850    │   17             │ entries (lane, value)
//!    ▼     │  products with │          851    │   16             │ entries (lane, value)
//!          │  every lane,   │            ⋮    │                  │
//!          │  in L1         │        26,743   │    0             │ nothing
//!          └────────────────┘
//! ```
//!
//! - Columns are put in the order of their lengths too. So many of the first ones as makes the work least are *dense* in a
//!   tile: for each entry of a row in such a column all lanes are multiplied and added, up to 64 to an instruction. In the
//!   other columns the entries of the lanes are added up one by one. Rows are short and popular columns are dense, so
//!   nearly all products are of the first kind, at a fraction of what each would cost alone.
//! - Sums of products of small integers are exact whatever the order, so ratings on a grid (stars, half stars, counts;
//!   `grid`, `integer`) are divided by its step. Products of up to 15 · 15 are added up in 16 bits, no more than fit, and
//!   then in 32.
//! - Other ratings (`real`) go the same way (`kernel`) as f32s, 8 to an instruction, and are summed in f64. There only
//!   additions round, as two f32s have an exact product; they come in the order of the columns, the same for every pair:
//!   dense ones are the first in every tile, and adding 0 for a lane that has no rating changes no bit.
//! - Tiles are so narrow that the cells of their dense columns fit into the second-level cache. Where even the narrowest
//!   tile has too many, they come as blocks, one after another, and the products of a panel of rows wait in between.
//! - A pair matters if it beats the worst of the best K of *either* row. The products of a row are compared with that, a
//!   whole tile at once and with room for rounding; the few that pass get their exact similarity and are offered to both
//!   lists (`best`). Lists are locked one at a time, and as their order is total, the K best do not depend on who came
//!   first.
//! - Of some thousand rows nearly all pairs have something in common, and what passes costs more than the products. So
//!   lists are good early: the longest rows are the first that all others meet, the likeliest neighbors of all, and a row
//!   without neighbors takes of its first tile only what may be among the best K there. The rows of a tile meet one
//!   another twice, once for each list, which makes that their first tile too.
//! - Where hardly any two of very many rows share a column, comparing whole tiles would be nearly all of the work; there one
//!   row at a time meets those that it shares a column with (`by_row`).
//! - Of a selection of rows, each meets all lanes: the selected ones come first in the order and meet each other as above,
//!   all others are lanes only.

mod best;
mod by_row;
pub mod cosine;
mod grid;
mod integer;
mod kernel;
mod layout;
pub mod lists;
mod pair;
mod real;
pub mod reference;
pub mod simd;
pub mod sparse;
mod tile_update;
