//! `likemind synth`: writes synthetic ratings for benchmarks. The command is hidden because operators do not need it.

use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::Context;
use clap::ValueEnum;

use super::Exit;
use recommender::evaluation::synthetic::{CountSummary, Shape, SyntheticRatings};

/// The time of the very first rating.
const FIRST_RATING_UNIX: u64 = 1_000_000_000;

/// The first ratings of all users are spread over this time.
const BEGINNINGS_SECONDS: u64 = 10 * 365 * 86_400;

const SECONDS_BETWEEN_RATINGS: u64 = 3_600;

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SynthArgs {
    /// The data set whose size and shape are imitated
    #[arg(long, value_enum, default_value_t = Size::Movielens20m)]
    size: Size,
    /// Multiplies the numbers of users, items and ratings, and the multiply-adds of all pairs
    #[arg(long, default_value_t = 1.0, value_parser = factor)]
    scale: f64,
    /// Seed of the random generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print only the distribution of the counts
    #[arg(long)]
    shape: bool,
}

const AFTER_HELP: &str = "\
Ratings go to standard output, user by user, with the columns user_id,item_id,rating,timestamp (seconds since 1970).
To import them:

  likemind synth | likemind import ratings - --map value=rating,rated_at=timestamp --time-format unix \\
    --set-config rating.min=0.5";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    /// 1 million ratings in whole stars
    #[value(name = "movielens-1m")]
    Movielens1m,
    /// 19.9 million ratings in half stars
    #[value(name = "movielens-20m")]
    Movielens20m,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text
        .parse()
        .ok()
        .filter(|&factor: &f64| factor > 0.0 && factor <= 100.0);
    factor.ok_or_else(|| "must be a number above 0, at most 100".to_owned())
}

pub(super) fn run(args: SynthArgs) -> anyhow::Result<Exit> {
    let shape = match args.size {
        Size::Movielens1m => Shape::movielens_1m(),
        Size::Movielens20m => Shape::movielens_20m(),
    };
    let ratings = SyntheticRatings::new(shape.scaled(args.scale), args.seed);
    if args.shape {
        let by_user = ratings.matrix()?;
        println!("ratings {}", by_user.nnz());
        print_counts("users", &CountSummary::of_rows(&by_user), "item–item");
        print_counts("items", &CountSummary::of_rows(&by_user.transpose()), "user–user");
        return Ok(Exit::Done);
    }
    match write_csv(&ratings, BufWriter::with_capacity(1 << 20, io::stdout().lock())) {
        // The reader has closed the pipe and needs no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        written => written
            .context("the ratings cannot be written to standard output")
            .map(|()| Exit::Done),
    }
}

fn print_counts(name: &str, counts: &CountSummary, side: &str) {
    let CountSummary {
        n,
        median,
        mean,
        max,
        sum_of_squares,
    } = counts;
    println!(
        "{name} {n}: ratings median {median}, mean {mean:.1}, max {max}; {side} work {:.3e}",
        *sum_of_squares as f64
    );
}

/// Writes the ratings. Ids are padded so that their byte order is the generator's numeric order.
fn write_csv(ratings: &SyntheticRatings, mut output: impl Write) -> io::Result<()> {
    let digits = |n: usize| n.saturating_sub(1).max(1).ilog10() as usize + 1;
    let (user_digits, item_digits) = (digits(ratings.n_users()), digits(ratings.n_items()));
    writeln!(output, "user_id,item_id,rating,timestamp")?;
    for (user, rated) in (0u64..).zip(ratings.users()) {
        let beginning = FIRST_RATING_UNIX + user * BEGINNINGS_SECONDS / ratings.n_users() as u64;
        for (place, (item, value)) in (0..).zip(rated) {
            let timestamp = beginning + place * SECONDS_BETWEEN_RATINGS;
            writeln!(
                output,
                "u{user:0user_digits$},i{item:0item_digits$},{value},{timestamp}"
            )?;
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rating_is_written_as_one_line() {
        let ratings = SyntheticRatings::new(Shape::movielens_1m().scaled(0.02), 1);
        let mut csv = Vec::new();
        write_csv(&ratings, &mut csv).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        let mut lines = csv.lines();
        assert_eq!(lines.next(), Some("user_id,item_id,rating,timestamp"));
        let expected = ratings.users().map(|rated| rated.len()).sum::<usize>();
        let mut seen = std::collections::BTreeSet::new();
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let [user, item, value, timestamp] = fields[..] else {
                panic!("{line}")
            };
            assert_eq!((user.len(), item.len()), (4, 3), "{line}");
            assert!((1.0..=5.0).contains(&value.parse::<f32>().unwrap()));
            assert!(timestamp.parse::<u64>().unwrap() >= FIRST_RATING_UNIX);
            assert!(seen.insert((user.to_owned(), item.to_owned())), "{line} is there twice");
        }
        assert_eq!(seen.len(), expected);
    }
}
