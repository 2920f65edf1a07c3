//! All-pairs cosine similarity of the rows of a sparse matrix: the best few neighbors of each row.
//!
//! [`cosine::top_k`] computes the lists. The tests compare it, byte by byte, with a plain reference in dense loops
//! (`reference`). Items are the rows of the transposed matrix, so the same code serves users and items.
//!
//! # How the kernel works
//!
//! The similarity of two rows follows from their dot product, a sum over the columns that both have. Every pair of rows
//! needs one. The kernel computes them for one row and thousands of others at once:
//!
//! 1. It sorts the rows by their number of entries, the longest first. A row's position in this order is its *rank*. It
//!    sorts the columns in the same manner; a column's position is its *place*.
//! 2. It cuts the sorted rows into *tiles* of up to 2,048 adjacent ranks. The rows of a tile are its *lanes*: lane 0 is the
//!    tile's first row, and so on. A tile holds its entries by column.
//! 3. A *job* pairs one tile with some thousand rows that come after it. It takes these rows one by one and computes the
//!    dot products of the row with all lanes. Threads take jobs from one queue.
//! 4. The few pairs whose dot product is large enough get their exact similarity and enter the lists of both rows.
//!
//! ```text
//!            lanes (a tile)                      the tile's columns
//!          ┌────────────────┐
//!          │ dot products   │  tile    place  │ lanes with entry │ stored as
//!          │ within the     │  itself  ───────┼──────────────────┼─────────────────────────────────
//!  rows,   │ tile           │             0   │  900 of 1,024    │ a cell for each lane   ┐ a block,
//!  one by  ├────────────────┤             1   │  700             │ a cell for each lane   │ in the
//!  one     │                │            ⋮    │                  │                        ┘ L2 cache
//!    │     │ row ──────────▶│          850    │   17             │ entries (lane, value)
//!    ▼     │  dot products  │          851    │   16             │ entries (lane, value)
//!          │  with all      │            ⋮    │                  │
//!          │  lanes, in L1  │        26,743   │    0             │ nothing
//!          └────────────────┘
//! ```
//!
//! ## Dense and sparse columns
//!
//! The first columns of a tile are *dense*: they store a cell for every lane, 0 where the lane has no entry. For each entry
//! of a row in a dense column, vector instructions multiply and add up to 64 lanes each. The other columns are *sparse*:
//! they store only their entries, which are added one by one. Each tile has as many dense columns as make its work least.
//! Rows are short and popular columns are dense, so nearly all products are computed in dense columns, at a fraction of
//! what each would cost alone.
//!
//! A tile is so narrow that its dense columns fit into the second-level cache. If even the narrowest tile has too many of
//! them, they are laid out in *blocks*, one after another, and the dot products of a *panel* of rows are kept between
//! blocks.
//!
//! ## Arithmetic
//!
//! - Ratings on a grid of few values, such as stars, half stars and counts (`grid`), are divided by its step and become
//!   small integers (`integer`). Sums of their products are exact in any order. Products of up to 15 · 15 are added in 16
//!   bits, no more than fit, and then in 32.
//! - Other ratings (`real`) stay f32s, and their products are summed in f64. The product of two f32s is exact in f64, so
//!   only additions round. They take place in the order of the columns' places, the same for every pair: the dense columns
//!   are the first ones in every tile, and adding 0 for a lane without a rating changes no bit.
//!
//! Both share the code in `kernel`, which is generic over `arithmetic::Arithmetic`.
//!
//! ## Selecting the best
//!
//! - A pair matters if it beats the worst neighbor in the list of *either* row: that similarity is the row's *threshold*.
//!   The dot products of a row are compared with both thresholds, many lanes per instruction, with room for rounding.
//! - Lists (`best`) are locked one at a time. Their order is total, so the K best do not depend on which thread came first.
//! - Among some thousand rows nearly all pairs share a column, and a pair that passes costs more than its products. So the
//!   thresholds must rise early. The longest rows, the likeliest neighbors of all, form the tile that all others are
//!   paired with first; and a row with an empty list takes from its first tile only what may be among the best K there.
//! - The rows of a tile are paired with each other in a job of their own, twice, once for each list. That makes their own
//!   tile one of their first.
//!
//! ## Special cases
//!
//! - Where hardly any two of very many rows share a column, comparing dot products with thresholds would be nearly all of
//!   the work. Then each row visits only the rows that it shares a column with (`by_row`).
//! - Of many equal rows, such as the items that only one and the same user has rated, the first few stand for all
//!   (`duplicates`): all their pairs are equally similar, so that no threshold would rule any out.
//! - If only some rows are selected, they come first in the order and are paired with each other as above. The other rows
//!   serve as lanes only.

mod arithmetic;
mod best;
mod by_row;
pub mod cosine;
mod duplicates;
mod grid;
mod integer;
mod kernel;
mod layout;
pub mod lists;
mod order;
mod pair;
mod real;
#[cfg(test)]
mod reference;
pub mod significance;
pub mod simd;
pub mod sparse;
mod tile;
mod tile_update;
