-- The stock of items, and how they are ordered ------------------------------------------------------------------------

-- Every count is kept. The latest is in force, less what was sold since.
CREATE TABLE IF NOT EXISTS inventory_positions (
    item_id     bigint NOT NULL REFERENCES items (id),
    counted_at  timestamptz NOT NULL,
    on_hand     double precision NOT NULL CHECK (on_hand >= 0 AND on_hand < 'infinity'),
    backordered double precision NOT NULL CHECK (backordered >= 0 AND backordered < 'infinity'),
    -- Units that were ordered and had not arrived, and when each order was expected.
    on_order    double precision[] NOT NULL DEFAULT '{}',
    expected_at timestamptz[] NOT NULL DEFAULT '{}',
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (item_id, counted_at),
    CHECK (cardinality(on_order) = cardinality(expected_at))
);

CREATE TABLE IF NOT EXISTS replenishment_policies (
    scope               text NOT NULL CHECK (scope IN ('item', 'category', 'merchant', 'default')),
    -- The external id of the item or merchant, or the category; empty for the default.
    scope_id            text COLLATE "C" NOT NULL CHECK ((scope_id = '') = (scope = 'default')),
    lead_time_days      double precision NOT NULL,
    review_period_days  double precision NOT NULL,
    -- One of the two.
    cycle_service_level double precision,
    fill_rate           double precision,
    min_order_quantity  double precision NOT NULL,
    order_multiple      double precision NOT NULL,
    max_cover_days      double precision NOT NULL,
    unit_cost_minor     bigint CHECK (unit_cost_minor > 0),
    currency_code       text,
    PRIMARY KEY (scope, scope_id),
    CHECK ((cycle_service_level IS NULL) <> (fill_rate IS NULL)),
    CHECK ((unit_cost_minor IS NULL) = (currency_code IS NULL))
);

-- Raised by every change of a policy: servers that hold them in memory read them anew.
CREATE TABLE IF NOT EXISTS replenishment_revision (
    is_only  boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    revision bigint NOT NULL
);
INSERT INTO replenishment_revision (revision) VALUES (0) ON CONFLICT DO NOTHING;

-- Imports of stock and policies can be undone (0009_imports.sql), and servers hear of it.
CREATE FUNCTION tell_of_undone_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'inventory_positions' THEN
        INSERT INTO changes (item_id) VALUES (OLD.item_id);
    ELSE
        UPDATE replenishment_revision SET revision = revision + 1;
    END IF;
    RETURN NULL;
END
$$;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['inventory_positions', 'replenishment_policies'] LOOP
        EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE ON %I FOR EACH ROW WHEN (keeps_import_copies()) '
                       'EXECUTE FUNCTION keep_import_copy()', name || '_keep_copies', name);
        EXECUTE format('CREATE TRIGGER %I AFTER UPDATE OR DELETE ON %I FOR EACH ROW '
                       'WHEN (current_setting(''likemind.undoes'', true) IS NOT DISTINCT FROM ''on'') '
                       'EXECUTE FUNCTION tell_of_undone_stock()', name || '_tell_of_undoing', name);
    END LOOP;
END
$$;
