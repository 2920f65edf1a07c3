//! Reads the values of attributes.

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// A user's value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeValue {
    pub name: String,
    pub user: String,
    pub value: String,
}

/// Reads the values that all users have of the attributes `names`, in any order.
pub async fn values(pool: &Pool, names: &[String]) -> Result<Vec<AttributeValue>, StoreError> {
    let mut transaction = pool.begin_unlimited().await?;
    let rows = sqlx::query_as!(
        AttributeValue,
        r#"SELECT user_attributes.name, external_id AS "user", user_attributes.value
           FROM user_attributes JOIN users ON users.id = user_id WHERE user_attributes.name = ANY($1)"#,
        names
    )
    .fetch_all(&mut *transaction)
    .await?;
    Ok(rows)
}
