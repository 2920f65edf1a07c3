//! CatalogService.

mod convert;

use tonic::{Request, Response, Status};

use crate::live::Live;
use crate::store::catalog::{self, categories};
use crate::store::coupons::attributes;
use crate::store::postgres::pool::Pool;
use domain::id::MerchantId;

use self::convert::attributes::ListUserAttributes;
use self::convert::{ListCategories, ListItems};
use super::batch::{self, Batch};
use super::caller::caller;
use super::proto::v1::catalog_service_server::CatalogService;
use super::proto::v1::{
    DeleteUserAttributesRequest, DeleteUserAttributesResponse, GetItemRequest, GetItemResponse, ListCategoriesRequest,
    ListCategoriesResponse, ListItemsRequest, ListItemsResponse, ListUserAttributesRequest, ListUserAttributesResponse,
    UpsertItemsRequest, UpsertItemsResponse, UpsertMerchantsRequest, UpsertMerchantsResponse,
    UpsertUserAttributesRequest, UpsertUserAttributesResponse,
};
use super::{page, status};

pub struct CatalogHandler {
    pub pool: Pool,
    pub live: Live,
}

#[tonic::async_trait]
impl CatalogService for CatalogHandler {
    async fn upsert_merchants(
        &self,
        request: Request<UpsertMerchantsRequest>,
    ) -> Result<Response<UpsertMerchantsResponse>, Status> {
        let merchants = request.into_inner().merchants;
        batch::check_size("merchants", merchants.len())?;
        let results = Batch::convert(merchants, convert::merchant_patch)
            .write(async |merchants| catalog::upsert_merchants(&self.pool, merchants).await)
            .await?;
        Ok(Response::new(UpsertMerchantsResponse { results }))
    }

    async fn upsert_items(
        &self,
        request: Request<UpsertItemsRequest>,
    ) -> Result<Response<UpsertItemsResponse>, Status> {
        let items = request.into_inner().items;
        batch::check_size("items", items.len())?;
        let results = Batch::convert(items, convert::item_patch)
            .write(async |items| catalog::upsert_items(&self.pool, items).await)
            .await?;
        self.live.refresh().await;
        Ok(Response::new(UpsertItemsResponse { results }))
    }

    async fn get_item(&self, request: Request<GetItemRequest>) -> Result<Response<GetItemResponse>, Status> {
        let caller = caller(&request)?;
        let item = convert::item_id(request.into_inner().item_id)?;
        let found = catalog::get_item(&self.pool, &item).await?;
        // For a merchant's key an item of another merchant does not exist.
        let found = found.filter(|item| caller.sees(item.facts.merchant.as_ref().map(MerchantId::as_str)));
        let item = found.ok_or_else(|| status::not_found("ITEM_NOT_FOUND", format!("there is no item {item}")))?;
        Ok(Response::new(GetItemResponse {
            item: Some(item.into()),
        }))
    }

    async fn list_items(&self, request: Request<ListItemsRequest>) -> Result<Response<ListItemsResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListItems::new(request.into_inner(), &caller)?;
        let rows = catalog::list_items(&self.pool, &list.selection, &list.after, list.page_size + 1).await?;
        let key = convert::selection_key(&list.selection);
        let (items, next_page_token) = page::cut(rows, list.page_size, &key, |item| item.id.to_string());
        Ok(Response::new(ListItemsResponse { items, next_page_token }))
    }

    async fn list_categories(
        &self,
        request: Request<ListCategoriesRequest>,
    ) -> Result<Response<ListCategoriesResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListCategories::new(request.into_inner(), &caller)?;
        let rows = categories::list(&self.pool, list.merchant.as_ref(), &list.after, list.page_size + 1).await?;
        let (categories, next_page_token) =
            page::cut(rows, list.page_size, &list.key(), |row| row.category.to_string());
        Ok(Response::new(ListCategoriesResponse {
            categories,
            next_page_token,
        }))
    }

    async fn upsert_user_attributes(
        &self,
        request: Request<UpsertUserAttributesRequest>,
    ) -> Result<Response<UpsertUserAttributesResponse>, Status> {
        let caller = caller(&request)?;
        let entries = request.into_inner().attributes;
        batch::check_size("attributes", entries.len())?;
        let results = Batch::convert(entries, convert::attributes::attribute)
            .write(async |entries| attributes::set(&self.pool, entries, &caller.name).await)
            .await?;
        Ok(Response::new(UpsertUserAttributesResponse { results }))
    }

    async fn delete_user_attributes(
        &self,
        request: Request<DeleteUserAttributesRequest>,
    ) -> Result<Response<DeleteUserAttributesResponse>, Status> {
        let caller = caller(&request)?;
        let entries = request.into_inner().attributes;
        batch::check_size("attributes", entries.len())?;
        let results = Batch::convert(entries, convert::attributes::key)
            .write(async |entries| attributes::delete(&self.pool, entries, &caller.name).await)
            .await?;
        Ok(Response::new(DeleteUserAttributesResponse { results }))
    }

    async fn list_user_attributes(
        &self,
        request: Request<ListUserAttributesRequest>,
    ) -> Result<Response<ListUserAttributesResponse>, Status> {
        let list = ListUserAttributes::try_from(request.into_inner())?;
        let rows = attributes::list(&self.pool, &list.filter, list.after(), list.page_size + 1).await?;
        let (attributes, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| {
            (row.user.to_string(), row.name.clone())
        });
        Ok(Response::new(ListUserAttributesResponse {
            attributes,
            next_page_token,
        }))
    }
}
