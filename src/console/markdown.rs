use maud::{Markup, PreEscaped};
use pulldown_cmark::html::push_html;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A text widget's Markdown, a level below the page's heading, which it need not repeat. HTML in it is shown as the text
/// it is, and links lead to pages only.
pub(super) fn markdown(text: &str, heading: &str) -> Markup {
    let text = text.strip_prefix(&format!("# {heading}\n")).unwrap_or(text);
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let events = Parser::new_ext(text, options).map(|event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = if is_page(&dest_url) { dest_url } else { "".into() };
            Event::Start(Tag::Link { link_type, dest_url, title, id })
        }
        Event::Start(Tag::Heading { level, id, classes, attrs }) => {
            Event::Start(Tag::Heading { level: below(level), id, classes, attrs })
        }
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(below(level))),
        // Nothing is fetched from elsewhere, and here there are no pictures.
        Event::Start(Tag::Image { .. }) => Event::Start(Tag::Emphasis),
        Event::End(TagEnd::Image) => Event::End(TagEnd::Emphasis),
        event => event,
    });
    let mut html = String::with_capacity(text.len() * 2);
    push_html(&mut html, events);
    PreEscaped(html)
}

fn below(level: HeadingLevel) -> HeadingLevel {
    HeadingLevel::try_from(level as usize + 1).unwrap_or(HeadingLevel::H6)
}

fn is_page(url: &str) -> bool {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    // A colon after a slash is no scheme's.
    match scheme {
        Some(scheme) if !scheme.contains(['/', '?', '#']) => ["http", "https", "mailto"].contains(&&*scheme),
        _ => !url.starts_with("//"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_and_links_to_programs_are_only_text() {
        let shown = markdown(
            "# A\n<script>x()</script>\n\n[b](javascript:x) [c](https://d/e) ![p](https://q/r.png) `k`",
            "B",
        )
        .0;
        assert!(shown.contains("<h2>A</h2>") && shown.contains("&lt;script&gt;"), "{shown}");
        assert!(
            shown.contains("<a href=\"\">b</a>") && shown.contains("<a href=\"https://d/e\">c</a>"),
            "{shown}"
        );
        assert!(
            !shown.contains("<img") && !shown.contains("r.png") && shown.contains("<code>k</code>"),
            "{shown}"
        );
        for (url, leads) in [
            ("/alarms", true),
            ("#a:b", true),
            ("HTTPS://x", true),
            ("JavaScript:x", false),
            ("data:text/html,x", false),
            ("//evil.example", false),
        ] {
            assert_eq!(is_page(url), leads, "{url}");
        }
        assert!(markdown("|a|b|\n|-|-|\n|1|2|", "").0.contains("<table>"));
        assert_eq!(markdown("# A\nb", "A").0, "<p>b</p>\n");
    }
}
