"""A bank, or two banks side by side, as one HTML file that needs no network.

page ─▶ content    everything that the page says: facts, health, tables, and the comparison with another bank
        curves     the numbers of the charts, as aggregates
        charts     the charts, as figures of Plotly with their content in words
        page.html  the template; page.css and page.js are inlined, and so is Plotly's script
"""

from costbank.analysis.report.page import WrittenReport, report_page, write_report

__all__ = ["WrittenReport", "report_page", "write_report"]
