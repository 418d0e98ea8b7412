--liquibase formatted sql

--changeset shop:42-orders-customer-id-bigint splitStatements:false
--comment On a database with a large table, pgshadow makes this change before the deploy, and this changeset does nothing.
DO $guard$
DECLARE
    orders CONSTANT pg_catalog.regclass := 'public.orders';
BEGIN
    -- Nothing to do: pgshadow has made the change, or this file has.
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = orders AND attname = 'customer_id'
               AND pg_catalog.format_type(atttypid, atttypmod) = 'bigint') THEN
        RETURN;
    END IF;
    -- Until the end of the transaction: nobody queues behind this for longer.
    PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
    -- With its indexes, and as it is on disk: statistics may be missing or old.
    IF pg_catalog.pg_total_relation_size(orders) > 16 * 1024 * 1024 THEN
        RAISE EXCEPTION 'public.orders is too large to be rewritten under a lock; first run: pgshadow alter --table public.orders --alter "ALTER COLUMN customer_id TYPE bigint"'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    ALTER TABLE public.orders ALTER COLUMN customer_id TYPE bigint;
END
$guard$;
