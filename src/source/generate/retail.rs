//! A wholesaler of gifts, the data of the retail example. Names and shapes follow the UCI Online Retail data set.

use std::io::Write;

use rand::RngExt;

use super::table::TableShape;
use super::text::{Fields, iso_micros, seconds};
use super::{EventKind, Random};

/// How many products and customers order lines refer to. The tables of both count their ids up through the same
/// range.
const PRODUCTS_SOLD: u64 = 3000;
const CUSTOMERS_BUYING: u64 = 4000;
/// How many recent lines are kept, which may be cancelled or sent again.
const RECENT_LINES: usize = 1024;

const COLOURS: [&str; 10] = [
    "WHITE", "RED", "CREAM", "PINK", "IVORY", "BLUE", "VINTAGE", "RUSTIC", "SMALL", "LARGE",
];
const THINGS: [&str; 15] = [
    "HANGING HEART T-LIGHT HOLDER",
    "METAL LANTERN",
    "COAT HANGER",
    "HOT WATER BOTTLE",
    "NESTING BOXES",
    "LUNCH BAG",
    "CAKE STAND",
    "RETROSPOT BUNTING",
    "JUMBO BAG",
    "PAPER CHAIN KIT",
    "ALARM CLOCK",
    "FOLDING RULER, 2M",
    "6\" PLATE",
    "SWEETHEART TRINKET BOX",
    "DOORMAT",
];
const CATEGORIES: [&str; 6] = ["lighting", "kitchen", "bags", "party", "home", "toys"];
const COUNTRIES: [&str; 8] = [
    "United Kingdom",
    "Germany",
    "France",
    "EIRE",
    "Spain",
    "Netherlands",
    "Belgium",
    "Switzerland",
];
const TIERS: [&str; 4] = ["bronze", "silver", "gold", "platinum"];
const REASONS: [&str; 4] = ["sale", "receipt", "count", "return"];
const FIRST_NAMES: [&str; 8] = ["Ada", "Bruno", "Chloe", "Dmitri", "Esra", "Farid", "Grace", "Hugo"];
const LAST_NAMES: [&str; 8] = [
    "Jensen", "O'Brien", "Martin", "Novak", "Okafor", "Schmidt", "Tanaka", "Weber",
];

/// The columns of the UCI files.
pub(super) const CSV_HEADER: &[u8] =
    b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

pub(super) static PRODUCTS: TableShape = TableShape {
    name: "products",
    key: |id, f| f.quoted("stock_code", format_args!("{}", StockCode(id))),
    row: |id, us, random, f| {
        f.quoted("stock_code", format_args!("{}", StockCode(id)));
        f.text("description", &description(id));
        f.text("category", CATEGORIES[(id % CATEGORIES.len() as u64) as usize]);
        // Decimals are text, as with Debezium's `decimal.handling.mode=string`.
        let cents = pence(id) * random.random_range(80..=120u64) / 100;
        f.quoted("list_price", format_args!("{}.{:02}", cents / 100, cents % 100));
        f.quoted("updated_at", format_args!("{}", iso_micros(us)));
    },
};

pub(super) static CUSTOMERS: TableShape = TableShape {
    name: "customers",
    key: |id, f| f.plain("customer_id", format_args!("{}", customer_id(id))),
    row: |id, us, random, f| {
        let first = FIRST_NAMES[(id % 8) as usize];
        let last = LAST_NAMES[(id / 8 % 8) as usize];
        f.plain("customer_id", format_args!("{}", customer_id(id)));
        f.text("name", &format!("{first} {last}"));
        let provider = ["mail", "post", "inbox"][random.random_range(0..3usize)];
        f.quoted(
            "email",
            format_args!("{}.{id}@{provider}.example", first.to_ascii_lowercase()),
        );
        f.text("country", country(id));
        f.text("tier", TIERS[random.random_range(0..TIERS.len())]);
        f.quoted("updated_at", format_args!("{}", iso_micros(us)));
    },
};

pub(super) static STOCK_MOVEMENTS: TableShape = TableShape {
    name: "stock_movements",
    key: |id, f| f.plain("movement_id", format_args!("{id}")),
    row: |id, us, random, f| {
        let reason = random.random_range(0..REASONS.len());
        let quantity: i64 = random.random_range(1..=48);
        let delta = match REASONS[reason] {
            "sale" => -quantity,
            "receipt" => quantity * 4,
            "count" => quantity - 24,
            _ => quantity / 8 + 1,
        };
        f.plain("movement_id", format_args!("{id}"));
        // The product depends only on the id, so that a correction of a movement keeps it.
        f.quoted(
            "stock_code",
            format_args!("{}", StockCode(id.wrapping_mul(7919) % PRODUCTS_SOLD)),
        );
        f.plain("delta", format_args!("{delta}"));
        f.text("reason", REASONS[reason]);
        f.quoted("moved_at", format_args!("{}", iso_micros(us)));
        f.quoted("updated_at", format_args!("{}", iso_micros(us)));
    },
};

pub(super) fn redemption(id: u64, us: i64, random: &mut Random, key: &mut Vec<u8>, f: &mut Fields<'_>) {
    let customer = customer_id(random.random_range(0..CUSTOMERS_BUYING));
    write!(key, "{customer}").expect("writing to memory does not fail");
    f.plain("redemption_id", format_args!("{id}"));
    f.plain("customer_id", format_args!("{customer}"));
    f.plain("points", format_args!("{}", random.random_range(1..=40u32) * 50));
    f.quoted("redeemed_at", format_args!("{}", iso_micros(us)));
}

/// Invoices of several lines, with cancellations.
pub(super) struct OrderLines {
    /// The newest invoice number.
    last_invoice: u64,
    /// The invoice that is being written.
    open_invoice: u64,
    line: u32,
    lines_left: u32,
    customer: Option<u64>,
    invoiced_us: i64,
    recent: Vec<OrderLine>,
    /// Which of `recent` the next line replaces.
    oldest: usize,
}

impl Default for OrderLines {
    fn default() -> Self {
        OrderLines {
            last_invoice: 600_000, // above the numbers of the UCI data set, which may be in the same table
            open_invoice: 0,
            line: 0,
            lines_left: 0,
            customer: None,
            invoiced_us: 0,
            recent: Vec::new(),
            oldest: 0,
        }
    }
}

#[derive(Clone, Copy)]
struct OrderLine {
    invoice: u64,
    line: u32,
    product: u64,
    quantity: i64,
    invoiced_us: i64,
    customer: Option<u64>,
    cancelled: bool,
}

impl OrderLines {
    /// Writes a line, and returns its actual kind.
    pub fn write(
        &mut self,
        kind: EventKind,
        us: i64,
        random: &mut Random,
        key: &mut Vec<u8>,
        f: &mut Fields<'_>,
    ) -> EventKind {
        let earlier = (!self.recent.is_empty()).then(|| self.recent[random.random_range(0..self.recent.len())]);
        let (line, kind) = match (kind, earlier) {
            (EventKind::Update, Some(line)) => (
                OrderLine {
                    quantity: random.random_range(1..=12),
                    ..line
                },
                kind,
            ),
            (EventKind::Delete, Some(line)) => {
                let (invoice, quantity) = (self.number(), -line.quantity);
                (
                    OrderLine {
                        invoice,
                        line: 1,
                        quantity,
                        invoiced_us: us,
                        cancelled: true,
                        ..line
                    },
                    kind,
                )
            }
            (EventKind::Late | EventKind::Broken, _) => {
                let (invoice, customer) = (self.number(), buyer(random));
                (new_line(invoice, 1, us, customer, random), kind)
            }
            _ => (self.next_line(us, random), EventKind::Insert),
        };
        line.write(key, f);
        kind
    }

    fn number(&mut self) -> u64 {
        self.last_invoice += 1;
        self.last_invoice
    }

    fn next_line(&mut self, us: i64, random: &mut Random) -> OrderLine {
        if self.lines_left == 0 {
            self.open_invoice = self.number();
            self.line = 0;
            self.lines_left = random.random_range(1..=40);
            self.customer = buyer(random);
            self.invoiced_us = us;
        }
        self.line += 1;
        self.lines_left -= 1;
        let line = new_line(self.open_invoice, self.line, self.invoiced_us, self.customer, random);
        if self.recent.len() < RECENT_LINES {
            self.recent.push(line);
        } else {
            self.recent[self.oldest] = line;
            self.oldest = (self.oldest + 1) % RECENT_LINES;
        }
        line
    }
}

/// A random customer; one in four buyers is anonymous.
fn buyer(random: &mut Random) -> Option<u64> {
    random
        .random_bool(0.75)
        .then(|| random.random_range(0..CUSTOMERS_BUYING))
}

fn new_line(invoice: u64, line: u32, us: i64, customer: Option<u64>, random: &mut Random) -> OrderLine {
    // The product of two uniform numbers makes few products sell much and many a little.
    let product = (random.random::<f64>() * random.random::<f64>() * PRODUCTS_SOLD as f64) as u64;
    let quantity = random.random_range(1..=24);
    OrderLine {
        invoice,
        line,
        product,
        quantity,
        invoiced_us: us,
        customer,
        cancelled: false,
    }
}

impl OrderLine {
    fn write(&self, key: &mut Vec<u8>, f: &mut Fields<'_>) {
        let prefix = if self.cancelled { "C" } else { "" };
        let (invoice, pence) = (self.invoice, pence(self.product));
        let (pounds, pence) = (pence / 100, pence % 100);
        write!(key, "\"{prefix}{invoice}\"").expect("writing to memory does not fail");
        // Invoice times are truncated to the minute.
        let at = seconds(self.invoiced_us.div_euclid(60_000_000) * 60_000_000);
        let country = self.customer.map_or(COUNTRIES[0], country);
        let csv = f.is_csv();
        let name = |json, uci| if csv { uci } else { json };
        f.quoted(name("invoice_no", "InvoiceNo"), format_args!("{prefix}{invoice}"));
        if !csv {
            f.plain("line_no", format_args!("{}", self.line)); // the UCI files have none
        }
        f.quoted(
            name("stock_code", "StockCode"),
            format_args!("{}", StockCode(self.product)),
        );
        f.text(name("description", "Description"), &description(self.product));
        f.plain(name("quantity", "Quantity"), format_args!("{}", self.quantity));
        f.quoted(name("invoiced_at", "InvoiceDate"), format_args!("{at}"));
        f.plain(name("unit_price", "UnitPrice"), format_args!("{pounds}.{pence:02}"));
        match self.customer {
            None => f.null(name("customer_id", "CustomerID")),
            // The UCI files write ids as floating-point numbers.
            Some(id) if csv => f.plain("CustomerID", format_args!("{}.0", customer_id(id))),
            Some(id) => f.plain("customer_id", format_args!("{}", customer_id(id))),
        }
        f.text(name("country", "Country"), country);
        f.end();
    }
}

fn customer_id(n: u64) -> u64 {
    12_346 + n
}

/// Seven of ten customers are in the home country.
fn country(customer: u64) -> &'static str {
    match customer % 10 {
        0..=6 => COUNTRIES[0],
        _ => COUNTRIES[1 + (customer / 10 % 7) as usize],
    }
}

fn pence(product: u64) -> u64 {
    ((product * 2_654_435_761) >> 7) % 1_200 + 19
}

fn description(product: u64) -> String {
    let colour = COLOURS[(product % COLOURS.len() as u64) as usize];
    let thing = THINGS[(product / COLOURS.len() as u64 % THINGS.len() as u64) as usize];
    format!("{colour} {thing}")
}

/// Written as `20071` or `85123A`.
struct StockCode(u64);

impl std::fmt::Display for StockCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", 20_000 + self.0)?;
        match self.0 % 5 {
            0 => f.write_str("A"),
            1 => f.write_str("B"),
            _ => Ok(()),
        }
    }
}
