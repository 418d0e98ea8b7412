DROP TABLE IF EXISTS orders CASCADE;
CREATE TABLE orders (
  id          bigserial PRIMARY KEY,
  customer_id int NOT NULL,
  status      text NOT NULL,
  amount      numeric(12,2) NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  note        text,
  payload     jsonb
);
INSERT INTO orders (customer_id, status, amount, created_at, note, payload)
SELECT (random() * 100000)::int, (array['new', 'paid', 'shipped', 'done'])[1 + (i % 4)], (random() * 1000)::numeric(12,2),
       now() - i * interval '1 second', md5(i::text) || md5((i + 1)::text), jsonb_build_object('a', i, 'b', md5(i::text))
FROM generate_series(1, :rows) i;
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON orders (created_at);
VACUUM (ANALYZE) orders;
CHECKPOINT;
