//! The page that `--dev` serves at `/`: live figures of this machine and a channel everybody may write to.
//!
//! Plain files, compiled into the binary; there is no build step and nothing is fetched from elsewhere. The page needs
//! no inline script or style, so it runs under `default-src 'self'; connect-src 'self' ws: wss:`. What it shows comes
//! from [`control::demo`]; `crates/xtask/web` tests it in a browser.

/// One file of the page, ready to be served as it is.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The exact request path, starting with a slash.
    pub path: &'static str,
    /// The value of the `Content-Type` header.
    pub content_type: &'static str,
    /// The whole body.
    pub body: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Every file of the demo. `/` is the page itself; it and its modules name the other paths.
#[must_use]
pub fn pages() -> Vec<Page> {
    vec![
        Page { path: "/", content_type: HTML, body: include_bytes!("index.html") },
        Page { path: "/demo/style.css", content_type: "text/css; charset=utf-8", body: include_bytes!("style.css") },
        Page { path: "/demo/icon.svg", content_type: "image/svg+xml", body: include_bytes!("icon.svg") },
        // The script that runs before the first paint, and the three modules.
        Page { path: "/demo/theme.js", content_type: SCRIPT, body: include_bytes!("theme.js") },
        Page { path: "/demo/app.js", content_type: SCRIPT, body: include_bytes!("app.js") },
        Page { path: "/demo/client.js", content_type: SCRIPT, body: include_bytes!("client.js") },
        Page { path: "/demo/strip.js", content_type: SCRIPT, body: include_bytes!("strip.js") },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(page: &Page) -> &'static str {
        std::str::from_utf8(page.body).expect("the files are UTF-8")
    }

    /// What stands between each `before` and the next double quote.
    fn quoted(text: &'static str, before: &str) -> Vec<&'static str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_file_is_named_by_another_and_every_name_has_its_file() {
        let pages = pages();
        let index = text(&pages[0]);
        let mut named = BTreeSet::from(["/".to_owned()]);
        for attribute in ["src=\"", "href=\"/"] {
            // `href="#text"` stays on the page; the slash that was split off comes back.
            let slash = if attribute.ends_with('/') { "/" } else { "" };
            named.extend(quoted(index, attribute).into_iter().map(|path| format!("{slash}{path}")));
        }
        for page in &pages {
            named.extend(quoted(text(page), "from \"./").into_iter().map(|file| format!("/demo/{file}")));
        }
        let served: BTreeSet<String> = pages.iter().map(|page| page.path.to_owned()).collect();
        assert_eq!(named, served);
        assert_eq!(served.len(), pages.len(), "no path twice");
    }

    #[test]
    fn nothing_inline_and_nothing_from_elsewhere() {
        for page in pages() {
            let text = text(&page);
            // The icon's namespace and the default address of the API are names, not fetched.
            let urls = text.matches("://").count();
            let own =
                text.matches("http://www.w3.org/2000/svg").count() + text.matches("http://127.0.0.1:9000").count();
            assert_eq!(urls, own, "{}", page.path);
            for inline in ["<style", " style=", "<script>", " onclick=", " onload=", "innerHTML", "eval("] {
                assert!(!text.contains(inline), "{}: {inline}", page.path);
            }
            let fetches = ["url(", "@import"].iter().any(|word| text.contains(word));
            assert!(!(page.path.ends_with(".css") && fetches), "a style sheet that fetches");
        }
    }
}
