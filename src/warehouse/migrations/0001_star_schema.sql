-- The star: what was sold (fact_sale_line), by which shop, of what, on which day.
--
-- There are no foreign keys: the receiver makes a dimension's row before any fact that names it, and a
-- check per row and key would cost more than all else of loading it.

create table dim_shop (
    shop_key  integer      not null primary key,
    shop_id   varchar(64)  not null unique,
    name      varchar(256),
    -- IANA, as Europe/Amsterdam; null for a shop nobody declared, whose days are UTC's.
    time_zone varchar(64)
);

create table dim_item (
    item_key    integer not null primary key,
    item_no     bigint  not null unique,
    -- Null for an item nobody declared.
    description varchar(1024)
);

create table dim_date (
    -- yyyymmdd
    date_key integer  not null primary key,
    date     date     not null,
    year     smallint not null,
    quarter  smallint not null,
    month    smallint not null,
    day      smallint not null,
    -- ISO 8601: Monday is 1, and a week belongs to the year its Thursday is in.
    weekday  smallint not null,
    iso_year smallint not null,
    iso_week smallint not null
);

create table fact_sale_line (
    shop_key       integer     not null,
    sale_id        varchar(36) not null,
    -- From 1, in the sale's order.
    line_no        integer     not null,
    item_key       integer     not null,
    -- The sale's day in the shop's time zone: sold_at's, else the id's.
    date_key       integer     not null,
    -- By the till's clock.
    sold_at        timestamptz,
    -- By the shop's.
    accepted_at    timestamptz not null,
    -- Pieces, kilograms. A refund's number and turnover are negative.
    gross_number   numeric     not null,
    gross_turnover numeric     not null,
    till           varchar(100),
    -- The till's counter, up to 2^64 - 1.
    seq            numeric(20),
    loaded_at      timestamptz not null default now(),
    primary key (shop_key, sale_id, line_no)
);
