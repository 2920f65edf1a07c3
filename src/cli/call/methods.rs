//! The RPCs that can be called, and how a name on the command line finds one.

use anyhow::Context;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use crate::grpc::proto::DESCRIPTORS;

/// The greatest number of names that an error suggests.
const MAX_NEAR: usize = 6;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("there is no RPC {asked}; {}`likemind call --list` shows all", suggestion(near))]
    Unknown { asked: String, near: Vec<String> },
    #[error("{asked} is ambiguous: name the service too, as in {}", found.join(" or "))]
    Ambiguous { asked: String, found: Vec<String> },
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("similar ones are {}; ", near.join(" and ")),
    }
}

/// The methods of Likemind's services and of grpc.health.v1.
pub(super) struct Methods {
    pool: DescriptorPool,
    methods: Vec<MethodDescriptor>,
}

impl Methods {
    pub fn compiled_in() -> anyhow::Result<Self> {
        let mut pool = DescriptorPool::decode(DESCRIPTORS).context("the compiled-in descriptors cannot be read")?;
        pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .context("the descriptors of grpc.health.v1 cannot be read")?;
        let methods = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect();
        Ok(Self { pool, methods })
    }

    pub fn services(&self) -> impl Iterator<Item = ServiceDescriptor> + '_ {
        self.pool.services()
    }

    /// Finds the method that `asked` names, in full or by an end that is unambiguous.
    ///
    /// # Errors
    /// [`ResolveError`] has the names that `asked` may have meant.
    pub fn resolve(&self, asked: &str) -> Result<&MethodDescriptor, ResolveError> {
        let paths: Vec<String> = self.methods.iter().map(path).collect();
        resolve(&paths, asked).map(|position| &self.methods[position])
    }
}

/// Returns `package.Service/Method`.
pub(super) fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Returns the position in `paths` (`package.Service/Method`) of the path that equals `asked`, or else of the only path that
/// ends with it. A dot may stand for the slash.
fn resolve(paths: &[String], asked: &str) -> Result<usize, ResolveError> {
    let asked = asked.trim_start_matches('/');
    let with_slash = match asked.rsplit_once('.') {
        Some((service, method)) if !asked.contains('/') => format!("{service}/{method}"),
        _ => asked.to_owned(),
    };
    let is_named = |path: &String| {
        path.strip_suffix(&with_slash)
            .is_some_and(|before| before.is_empty() || before.ends_with(['/', '.']))
    };
    let found: Vec<usize> = (0..paths.len())
        .filter(|&position| is_named(&paths[position]))
        .collect();
    let in_full = found.iter().copied().find(|&position| paths[position] == with_slash);
    match (in_full, found.as_slice()) {
        (Some(position), _) | (None, &[position]) => Ok(position),
        (None, []) => Err(ResolveError::Unknown {
            asked: asked.to_owned(),
            near: near(paths, &with_slash),
        }),
        (None, several) => Err(ResolveError::Ambiguous {
            asked: asked.to_owned(),
            found: several.iter().map(|&position| paths[position].clone()).collect(),
        }),
    }
}

/// Returns the paths whose method is spelled like that of `asked`, most similar first. If there are none, returns those that
/// contain `asked`.
fn near(paths: &[String], asked: &str) -> Vec<String> {
    let method_of = |path: &str| path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let asked_method = method_of(asked);
    let mut alike: Vec<(usize, &String)> = paths
        .iter()
        .map(|path| (edits(&method_of(path), &asked_method), path))
        .filter(|&(edits, _)| edits <= asked_method.len() / 3)
        .collect();
    alike.sort();
    let mut near: Vec<&String> = alike.into_iter().map(|(_, path)| path).collect();
    if near.is_empty() {
        let contains = |path: &&String| path.to_ascii_lowercase().contains(&asked.to_ascii_lowercase());
        near = paths.iter().filter(contains).collect();
    }
    near.into_iter().take(MAX_NEAR).cloned().collect()
}

/// Returns the Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 5] = ["a.v1.X/List", "a.v1.X/Get", "a.v1.Y/List", "b.v1.X/Get", "v1.Y/List"];

    #[test]
    fn an_unambiguous_end_of_a_name_is_enough() {
        let paths = PATHS.map(str::to_owned);
        let check = |asked: &str, expected: Result<&str, usize>| {
            let found = match resolve(&paths, asked) {
                Ok(position) => Ok(paths[position].as_str()),
                Err(ResolveError::Ambiguous { found, .. }) => Err(found.len()),
                Err(ResolveError::Unknown { .. }) => Err(0),
            };
            assert_eq!(found, expected, "{asked}");
        };
        check("a.v1.X/Get", Ok("a.v1.X/Get"));
        check("/a.v1.X/Get", Ok("a.v1.X/Get"));
        check("a.v1.X.Get", Ok("a.v1.X/Get"));
        check("X/List", Ok("a.v1.X/List"));
        check("X.List", Ok("a.v1.X/List"));
        check("Y/List", Err(2));
        // A name in full wins over a longer name that ends with it.
        check("v1.Y/List", Ok("v1.Y/List"));
        check("List", Err(3));
        check("Get", Err(2));
        check("et", Err(0));
        check("x/get", Err(0));
        check("", Err(0));
    }

    #[test]
    fn services_of_likemind_and_health_are_found() {
        let methods = Methods::compiled_in().unwrap();
        let check = |asked: &str, expected: &str| assert_eq!(path(methods.resolve(asked).unwrap()), expected);
        check("Recommend", "likemind.v1.RecommendationService/Recommend");
        check(
            "RecommendationService/Recommend",
            "likemind.v1.RecommendationService/Recommend",
        );
        check(
            "likemind.v1.RecommendationService/Recommend",
            "likemind.v1.RecommendationService/Recommend",
        );
        check("Health/Check", "grpc.health.v1.Health/Check");
    }

    #[test]
    fn an_unknown_name_suggests_the_most_similar() {
        let methods = Methods::compiled_in().unwrap();
        let check = |asked: &str, expected: &[&str]| {
            let Err(ResolveError::Unknown { near, .. }) = methods.resolve(asked) else {
                panic!("{asked} was found");
            };
            assert_eq!(near, expected, "{asked}");
        };
        check("recommend", &["likemind.v1.RecommendationService/Recommend"]);
        check("Recomend", &["likemind.v1.RecommendationService/Recommend"]);
        check("RatingService/GetItem", &["likemind.v1.CatalogService/GetItem"]);
        check(
            "Health",
            &["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"],
        );
        check("Zzz", &[]);
    }
}
