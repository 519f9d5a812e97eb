-- The currency of the messages in this generation that name none (DEFAULT_CURRENCY). It decides what the rows say, so a
-- program with another one must not add to them. Null: recorded when a program next writes here.
alter table generation add column default_currency text;
