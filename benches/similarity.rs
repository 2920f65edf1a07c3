//! Times the training kernel on synthetic ratings. See README.md beside this file.
//!
//!     cargo bench --bench similarity                                  # growth with one to eight times the work
//!     cargo bench --bench similarity -- ratios                        # against plain loops, takes seconds
//!     cargo bench --bench similarity -- write ratings.bin             # ratings for `similarity.py`
//!     cargo bench --bench similarity -- run ratings.bin --side items

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use recommender::evaluation::synthetic::{CountSummary, Shape, SyntheticRatings};
use serde_json::json;
use similarity::cosine::{KernelPath, RowSelection, TopKOptions, top_k};
use similarity::lists::NeighborLists;
use similarity::sparse::CsrMatrix;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Ignored: cargo adds it
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Time both sides of a million ratings, integer and real, on one thread, against plain loops row by row
    Ratios,
    /// Write ratings, little-endian: numbers of rows, columns and entries; offsets; columns; values
    Write {
        file: PathBuf,
        #[command(flatten)]
        ratings: RatingsArgs,
    },
    /// Time one side of written ratings, and print it as JSON
    Run {
        file: PathBuf,
        #[arg(long, value_enum)]
        side: Side,
        #[command(flatten)]
        options: RunOptions,
        /// Write the lists: number of rows and entries; offsets; neighbors; similarities
        #[arg(long, value_name = "FILE")]
        lists: Option<PathBuf>,
    },
}

#[derive(Args)]
struct RatingsArgs {
    #[arg(long, value_enum, default_value_t = Size::Movielens20m)]
    size: Size,
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replace each value by 1 + log2(1 + value), which lies on no grid
    #[arg(long)]
    real: bool,
}

#[derive(Args, Clone)]
struct RunOptions {
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 50)]
    neighbors: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    #[value(name = "movielens-1m")]
    Movielens1m,
    #[value(name = "movielens-20m")]
    Movielens20m,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Items,
    Users,
}

struct Run {
    lists: NeighborLists,
    path: KernelPath,
    seconds: f64,
    peak_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => growth(),
        Some(Command::Ratios) => ratios(),
        Some(Command::Write { file, ratings }) => write_matrix(&file, &matrix(&ratings)?),
        Some(Command::Run {
            file,
            side,
            options,
            lists,
        }) => {
            let by_user = read_matrix(&file)?;
            let run = time(&by_user, &by_user.transpose(), side, &options)?;
            let path = run.path.to_string();
            println!(
                "{}",
                json!({"seconds": run.seconds, "peak_bytes": run.peak_bytes, "path": path})
            );
            lists.map_or(Ok(()), |file| write_lists(&file, &run.lists))
        }
    }
}

/// Times one to eight times the work of an eighth of the large set.
fn growth() -> anyhow::Result<()> {
    println!("| work | side | multiply-adds | seconds | peak MB | ns per multiply-add |");
    println!("|---|---|---|---|---|---|");
    for times in [1, 2, 4, 8] {
        let ratings = RatingsArgs {
            size: Size::Movielens20m,
            scale: f64::from(times) / 8.0,
            seed: 1,
            real: false,
        };
        let by_user = matrix(&ratings)?;
        let by_item = by_user.transpose();
        let options = RunOptions {
            threads: 2,
            neighbors: 50,
        };
        for (name, side, columns) in [("items", Side::Items, &by_user), ("users", Side::Users, &by_item)] {
            let work = CountSummary::of_rows(columns).sum_of_squares as f64;
            let run = time(&by_user, &by_item, side, &options)?;
            let (seconds, megabytes) = (run.seconds, run.peak_bytes / 1_000_000);
            let per_work = seconds * 1e9 / work;
            println!("| {times} × | {name} | {work:.2e} | {seconds:.2} | {megabytes} | {per_work:.4} |");
        }
    }
    Ok(())
}

/// Times the kernel against plain loops, so that a regression shows on any machine.
fn ratios() -> anyhow::Result<()> {
    println!("| products | side | plain loops, s | kernel, s | ratio |");
    println!("|---|---|---|---|---|");
    for real in [false, true] {
        let by_user = matrix(&RatingsArgs {
            size: Size::Movielens1m,
            scale: 1.0,
            seed: 1,
            real,
        })?;
        let by_item = by_user.transpose();
        for (name, side, rows, columns) in [
            ("items", Side::Items, &by_item, &by_user),
            ("users", Side::Users, &by_user, &by_item),
        ] {
            let options = RunOptions {
                threads: 1,
                neighbors: 50,
            };
            let start = Instant::now();
            let n_kept = row_by_row(rows, columns, options.neighbors);
            let plain = start.elapsed().as_secs_f64();
            let run = time(&by_user, &by_item, side, &options)?;
            ensure!(run.lists.len() == n_kept, "{} neighbors, not {n_kept}", run.lists.len());
            let (seconds, path) = (run.seconds, run.path);
            println!(
                "| {path} | {name} | {plain:.2} | {seconds:.2} | {:.1} |",
                plain / seconds
            );
        }
    }
    Ok(())
}

/// Computes the neighbors of all rows in the plainest way, one row after the other with its products in one array, and
/// returns how many are kept.
fn row_by_row(rows: &CsrMatrix, columns: &CsrMatrix, keep: usize) -> usize {
    let norm = |row| -> f64 {
        let square = |&value: &f32| f64::from(value) * f64::from(value);
        rows.row(row).1.iter().map(square).sum::<f64>().sqrt()
    };
    let norms: Vec<f64> = (0..rows.n_rows()).map(norm).collect();
    let mut dots = vec![0.0; rows.n_rows()];
    let mut n_kept = 0;
    for row in 0..rows.n_rows() {
        dots.fill(0.0);
        let (row_columns, values) = rows.row(row);
        for (&column, &value) in row_columns.iter().zip(values) {
            let (others, other_values) = columns.row(column as usize);
            for (&other, &other_value) in others.iter().zip(other_values) {
                dots[other as usize] += f64::from(value) * f64::from(other_value);
            }
        }
        let similar = (0..rows.n_rows()).filter(|&other| other != row && dots[other] > 0.0);
        let mut similarities: Vec<f64> = similar.map(|other| dots[other] / (norms[row] * norms[other])).collect();
        if similarities.len() > keep {
            similarities.select_nth_unstable_by(keep, |a, b| b.total_cmp(a));
            similarities.truncate(keep);
        }
        n_kept += std::hint::black_box(similarities).len();
    }
    n_kept
}

fn matrix(args: &RatingsArgs) -> anyhow::Result<CsrMatrix> {
    let shape = match args.size {
        Size::Movielens1m => Shape::movielens_1m(),
        Size::Movielens20m => Shape::movielens_20m(),
    };
    let matrix = SyntheticRatings::new(shape.scaled(args.scale), args.seed).matrix()?;
    if !args.real {
        return Ok(matrix);
    }
    let values = matrix.values().iter().map(|value| 1.0 + (1.0 + value).log2());
    let (offsets, columns) = (matrix.offsets().to_vec(), matrix.columns().to_vec());
    Ok(CsrMatrix::new(matrix.n_columns(), offsets, columns, values.collect())?)
}

fn time(by_user: &CsrMatrix, by_item: &CsrMatrix, side: Side, options: &RunOptions) -> anyhow::Result<Run> {
    let (rows, columns) = match side {
        Side::Items => (by_item, by_user),
        Side::Users => (by_user, by_item),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    let keep = TopKOptions {
        neighbors: options.neighbors,
    };
    // The peak begins anew here: it is that of the computation, with both matrices in memory.
    fs::write("/proc/self/clear_refs", "5").context("this system cannot reset the peak of memory")?;
    let start = Instant::now();
    let found = pool.install(|| top_k(rows, columns, RowSelection::All, &keep))?;
    Ok(Run {
        seconds: start.elapsed().as_secs_f64(),
        peak_bytes: peak_bytes()?,
        lists: found.lists,
        path: found.path,
    })
}

fn peak_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmHWM")?.parse::<u64>()? * 1024)
}

fn write_matrix(file: &Path, matrix: &CsrMatrix) -> anyhow::Result<()> {
    let mut output = io::BufWriter::new(fs::File::create(file)?);
    for number in [matrix.n_rows(), matrix.n_columns(), matrix.nnz()] {
        output.write_all(&(number as u64).to_le_bytes())?;
    }
    write_all(&mut output, matrix.offsets(), u64::to_le_bytes)?;
    write_all(&mut output, matrix.columns(), u32::to_le_bytes)?;
    write_all(&mut output, matrix.values(), f32::to_le_bytes)?;
    Ok(output.flush()?)
}

fn write_lists(file: &Path, lists: &NeighborLists) -> anyhow::Result<()> {
    let mut output = io::BufWriter::new(fs::File::create(file)?);
    for number in [lists.n_rows(), lists.len()] {
        output.write_all(&(number as u64).to_le_bytes())?;
    }
    write_all(&mut output, lists.offsets(), u64::to_le_bytes)?;
    write_all(&mut output, lists.neighbors(), u32::to_le_bytes)?;
    write_all(&mut output, lists.similarities(), f32::to_le_bytes)?;
    Ok(output.flush()?)
}

fn write_all<T: Copy, const N: usize>(
    output: &mut impl Write,
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    values.iter().try_for_each(|&value| output.write_all(&to_bytes(value)))
}

fn read_matrix(file: &Path) -> anyhow::Result<CsrMatrix> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (header, rest) = bytes.split_at_checked(24).context("no header")?;
    let header: Vec<usize> = numbers(header, |bytes| u64::from_le_bytes(bytes) as usize).collect();
    let [n_rows, n_columns, nnz] = header[..] else {
        bail!("no header");
    };
    ensure!(
        rest.len() == 8 * (n_rows + 1) + 8 * nnz,
        "{} is cut short",
        file.display()
    );
    let (offsets, rest) = rest.split_at(8 * (n_rows + 1));
    let (columns, values) = rest.split_at(4 * nnz);
    let offsets = numbers(offsets, u64::from_le_bytes).collect();
    let columns = numbers(columns, u32::from_le_bytes).collect();
    Ok(CsrMatrix::new(
        n_columns,
        offsets,
        columns,
        numbers(values, f32::from_le_bytes).collect(),
    )?)
}

fn numbers<T, const N: usize>(bytes: &[u8], from_bytes: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |&bytes| from_bytes(bytes))
}
